"""Weights written for others from the command line, and read back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lavis_lite import load_model
from lavis_lite.commands.convert import convert
from lavis_lite.common.config.schema import ConfigError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    return load_model("blip_caption", "tiny").save_salesforce(path)


def test_a_captioner_goes_to_transformers_and_back_unchanged(weights, tmp_path):
    said = subprocess.run(
        [
            *(sys.executable, "-m", "lavis_lite", "convert", str(weights), "--to", "transformers"),
            *("-o", str(tmp_path / "folder"), "--name", "blip_caption", "--type", "tiny"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert said.stdout.strip() == str(tmp_path / "folder")
    again = convert(
        tmp_path / "folder",
        "salesforce",
        tmp_path / "again.pth",
        name="blip_caption",
        model_type="tiny",
    )
    first, second = (torch.load(path, weights_only=True)["model"] for path in (weights, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_file_alone_does_not_say_which_model_it_is(weights, tmp_path):
    with pytest.raises(ConfigError, match="--name blip_caption"):
        convert(weights, "transformers", tmp_path / "folder")
