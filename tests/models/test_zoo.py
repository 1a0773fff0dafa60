"""Models by name: overrides, weights of runs and of strangers, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_SIZES
from processes import run, train_command

from lavis_lite import load_model, load_model_and_preprocess, model_zoo
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import UnknownNameError
from lavis_lite.models.weights.tokenizer import build_vocabulary


def test_any_key_of_the_model_can_be_overridden(tmp_path):
    folder = build_vocabulary(["a cat on a mat"], tmp_path)
    model = load_model("blip_caption", "base", **TINY_SIZES, tokenizer=str(folder), load_pretrained=False)
    assert model.visual_encoder.embed_dim == 32
    assert model.text_config.vocab_size == len(model.tokenizer) < 120


def test_the_full_sizes_have_the_published_number_of_entries_and_parameters(tmp_path):
    pieces = [f"[unused{n}]" for n in range(30522 - 5)]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]))
    with torch.device("meta"):
        model = load_model(
            "blip_caption", "base", device="meta", tokenizer=str(tmp_path), load_pretrained=False
        )
    assert len(model.state_dict()) == 474
    assert model.show_n_params(return_str=False) / 1e6 == pytest.approx(223.97, abs=0.01)
    assert model.dec_token_id == 30522


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("blip_captions", "base"), r"Did you mean blip_caption"),
        (("blip_caption", "bas"), r"has no type 'bas'. Did you mean base"),
    ],
)
def test_unknown_names_name_the_nearest(arguments, message):
    with pytest.raises(UnknownNameError, match=message):
        load_model(*arguments)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"model.image_siz is not a key of model; did you mean image_size"):
        load_model("blip_caption", "tiny", image_siz=64)


def test_position_embeddings_are_resized_when_weights_are_loaded(tmp_path):
    small = load_model("blip_caption", "tiny")
    torch.save({"model": small.state_dict()}, tmp_path / "weights.pth")
    large = load_model("blip_caption", "tiny", image_size=96, checkpoint=tmp_path / "weights.pth")
    assert large.visual_encoder.pos_embed.shape[1] > small.visual_encoder.pos_embed.shape[1]
    assert torch.equal(large.visual_encoder.pos_embed[:, 0], small.visual_encoder.pos_embed[:, 0])


def test_weights_with_other_parts_load_and_weights_without_ours_do_not(tmp_path):
    model = load_model("blip_caption", "tiny")
    pretrained = {**model.state_dict(), "itm_head.weight": torch.zeros(2, 128), "temp": torch.zeros(())}
    torch.save({"model": pretrained}, tmp_path / "more.pth")
    load_model("blip_caption", "tiny", checkpoint=tmp_path / "more.pth")
    del pretrained["visual_encoder.cls_token"]
    pretrained["strange"] = torch.zeros(1)
    torch.save({"model": pretrained}, tmp_path / "less.pth")
    with pytest.raises(
        CheckpointError, match=r"1 keys missing: visual_encoder.cls_token. 1 keys unexpected: strange"
    ):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "less.pth")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("code ran",)

    torch.save({"model": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run somebody's code"):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "evil.pth")


def test_a_run_folder_brings_model_tokenizer_and_generation_settings(run_file):
    result = run(train_command(run_file.write(max_epoch=1, num_beams=2, max_len=9)))
    assert result.returncode == 0, result.stderr
    model, vis_processors, text_processors = load_model_and_preprocess(
        "blip_caption", "tiny", is_eval=True, checkpoint=run_file.output
    )
    assert model.config.image_size == 32
    assert (model.generation_settings.num_beams, model.generation_settings.max_length) == (2, 9)
    assert vis_processors["eval"].config.image_size == 32
    assert text_processors["train"]("A cat.") == "a picture of a cat"
    captioned = subprocess.run(
        [
            sys.executable,
            "-m",
            "lavis_lite",
            "caption",
            str(_test_images(run_file)),
            "--checkpoint",
            str(run_file.output),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert captioned.stdout.count('"caption"') == 10


def _test_images(run_file) -> Path:
    return Path(run_file.sections["datasets"]["shapes_caption"]["folder"]) / "images" / "test"


def test_the_zoo_lists_models_and_types():
    assert ("blip_caption", ["base_coco", "large_coco", "base", "large", "tiny"]) in list(model_zoo)
    assert "blip_caption" in str(model_zoo)
    assert len(model_zoo) >= 5
