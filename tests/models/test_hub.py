"""Weights and vocabularies are found wherever they are; nothing that cannot be had is left out in silence."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hub_server import COMMIT, running_hub

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.weights.adapters.addresses import load_address, load_first
from lavis_lite.models.weights.adapters.published import HUB_NAMES, URLS, same_weights
from lavis_lite.models.weights.hub import HubError, hub_snapshot, is_hub_name
from lavis_lite.models.weights.tokenizer import BUNDLED, DEFAULT_TOKENIZER, TokenizerError, load_tokenizer

REPOSITORY = "somebody/blip-tiny"


@pytest.fixture(scope="module")
def model() -> BaseModel:
    torch.manual_seed(0)
    return load_model("blip_image_text_matching", "tiny", is_eval=True)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    return model.save_transformers(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/model.pth"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, which may not be asked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_into(cache: Path, repository: str, folder: Path) -> Path:
    """Lay `folder` into the cache as the hub's own client does."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    snapshot.parent.mkdir()
    snapshot.symlink_to(folder, target_is_directory=True)
    return snapshot


FETCH_REPOSITORY = (
    "import sys\nfrom lavis_lite.models.weights.hub import HubError, hub_snapshot\n"
    "try:\n    print(*sorted(file.name for file in hub_snapshot(sys.argv[1]).iterdir()))\n"
    "except HubError as error:\n    print('HubError', error)"
)
LOAD_TOKENIZER = (
    "import sys\nfrom lavis_lite.models.weights.tokenizer import load_tokenizer\n"
    "print(*load_tokenizer(sys.argv[1]).tokenize('a red circle'))"
)


def ask(
    hub_url: str, repository: str, home: Path, code: str = FETCH_REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own: the hub's address is read when its client is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", code, repository],
        env=environment | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("Salesforce/blip-vqa-base", True),
        ("hf://Salesforce/blip-vqa-base", True),
        ("https://example.org/a", False),
        ("file:///a/b", False),
        ("weights/model.pth", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("~/name", False),
        ("name", False),
        ("one/two/three", False),
        (Path("owner/name"), False),
    ],
)
def test_hub_names_are_told_from_paths_and_addresses(address, expected):
    assert is_hub_name(address) is expected


def test_a_folder_that_is_here_is_no_hub_name(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("owner/name")
    assert is_hub_name("hf://owner/name")


def test_of_a_repository_with_safetensors_nothing_but_what_is_needed_is_fetched(folder, tmp_path):
    repository_folder = tmp_path / "repository"
    repository_folder.mkdir()
    for file in folder.iterdir():
        (repository_folder / file.name).write_bytes(file.read_bytes())
    for unwanted in ("pytorch_model.bin", "tf_model.h5", "README.md", "code.py"):
        (repository_folder / unwanted).write_text("unwanted")
    with running_hub(REPOSITORY, repository_folder) as hub:
        asked = ask(hub.url, REPOSITORY, tmp_path / "home")
    names = sorted(file.name for file in folder.iterdir())
    assert (asked.stdout.split(), asked.stderr[-2000:] if not asked.stdout else "") == (names, "")
    assert sorted(set(hub.downloaded)) == names


def test_a_pickle_is_fetched_where_there_is_nothing_else(folder, tmp_path):
    repository_folder = tmp_path / "repository"
    repository_folder.mkdir()
    (repository_folder / "config.json").write_bytes((folder / "config.json").read_bytes())
    (repository_folder / "pytorch_model.bin").write_text("a pickle")
    with running_hub(REPOSITORY, repository_folder) as hub:
        assert ask(hub.url, REPOSITORY, tmp_path / "home").stdout.split() == [
            "config.json",
            "pytorch_model.bin",
        ]
        said = ask(hub.url, "somebody/else", tmp_path / "home").stdout
    assert said.startswith(
        "HubError somebody/else: neither a file or folder here nor a public hub repository"
    )


def test_a_hub_that_cannot_be_reached_is_said_in_one_sentence(dead_url, tmp_path):
    said = ask(dead_url.removesuffix("/model.pth"), REPOSITORY, tmp_path / "home").stdout
    assert said.startswith(f"HubError {REPOSITORY}: the hub cannot be reached and its cache does not hold")
    assert len(said.splitlines()) == 1


def test_of_a_repository_that_is_named_as_tokenizer_only_the_tokenizer_is_fetched(tmp_path):
    repository_folder = tmp_path / "repository"
    repository_folder.mkdir()
    (repository_folder / "vocab.txt").write_bytes((BUNDLED / "shapes" / "vocab.txt").read_bytes())
    (repository_folder / "model.safetensors").write_text("unwanted")
    with running_hub(REPOSITORY, repository_folder) as hub:
        asked = ask(hub.url, REPOSITORY, tmp_path / "home", LOAD_TOKENIZER)
    assert asked.stdout.split() == ["a", "red", "circle"]
    assert set(hub.downloaded) == {"vocab.txt"}


def test_a_tokenizer_comes_from_the_cache_when_the_hub_may_not_be_asked(hub_cache):
    put_into(hub_cache, DEFAULT_TOKENIZER, BUNDLED / "shapes")
    assert load_tokenizer().get_vocab() == load_tokenizer("shapes").get_vocab()


def test_a_tokenizer_that_cannot_be_had_is_an_error_and_no_empty_vocabulary(hub_cache):
    with pytest.raises(TokenizerError, match=r"tokenizer bert-base-uncased: .*HF_HUB_OFFLINE forbids"):
        load_model("blip_caption", "base_coco", load_finetuned=False)


def test_a_folder_without_a_vocabulary_is_no_tokenizer(tmp_path):
    with pytest.raises(TokenizerError, match=r"holds no vocab\.txt and no tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_the_cache_is_used_when_the_hub_may_not_be_asked(hub_cache, folder):
    snapshot = put_into(hub_cache, REPOSITORY, folder)
    assert hub_snapshot(REPOSITORY) == hub_snapshot(f"hf://{REPOSITORY}") == snapshot


def test_what_offline_mode_forbids_is_said(hub_cache):
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        hub_snapshot(REPOSITORY)


@pytest.mark.parametrize("kept", ["config.json", "model.safetensors"])
def test_half_a_repository_in_the_cache_is_not_taken_for_it(hub_cache, folder, tmp_path, kept):
    half = tmp_path / "half"
    half.mkdir()
    (half / kept).write_bytes((folder / kept).read_bytes())
    put_into(hub_cache, REPOSITORY, half)
    with pytest.raises(HubError, match="only a part"):
        hub_snapshot(REPOSITORY)


def test_a_hub_name_gives_weights_and_the_settings_they_were_made_for(hub_cache, folder, model):
    put_into(hub_cache, REPOSITORY, folder)
    weights = load_address(REPOSITORY)
    again = type(model).from_config(weights.settings)
    again.load_weights(weights.checkpoint["model"], weights.source)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_a_model_by_hub_name_brings_its_own_sizes_and_words(hub_cache, folder, model):
    put_into(hub_cache, REPOSITORY, folder)
    again = load_model("blip_image_text_matching", "base", checkpoint=REPOSITORY)
    assert again.config.vision_sizes == model.config.vision_sizes
    assert len(again.tokenizer) == len(model.tokenizer)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_settings_of_ones_own_stand_over_those_of_a_folder(folder):
    larger = load_model("blip_image_text_matching", "base", checkpoint=folder, image_size=96)
    assert larger.visual_encoder.pos_embed.shape[1] == 1 + (96 // larger.config.vision_sizes.patch_size) ** 2


def test_published_weights_come_from_the_hub_where_their_server_fails(hub_cache, folder, model, caplog):
    """The address is the published one; the network of the tests ends at this machine."""
    put_into(hub_cache, "Salesforce/blip-itm-base-coco", folder)
    with caplog.at_level(logging.WARNING):
        weights = load_address(URLS["model_base_retrieval_coco"], retries=0)
    assert weights.source == "Salesforce/blip-itm-base-coco"
    assert any("storage.googleapis.com" in record.getMessage() for record in caplog.records)


def test_a_file_gives_what_it_holds_beside_weights(tmp_path, model):
    torch.save({"model": model.state_dict(), "inference": {"prompt": "a "}}, tmp_path / "own.pth")
    weights = load_address(tmp_path / "own.pth")
    assert (weights.checkpoint["inference"], weights.settings) == ({"prompt": "a "}, {})
    assert weights.source == str(tmp_path / "own.pth")


def test_the_next_address_is_taken_with_a_warning_when_one_cannot_be_had(dead_url, folder, hub_cache, caplog):
    with caplog.at_level(logging.WARNING):
        weights = load_first([dead_url, "nobody/nothing", folder], retries=0)
    assert weights.source == str(folder)
    (warning,) = [record.getMessage() for record in caplog.records if "Weights come from" in record.message]
    assert dead_url in warning and "nobody/nothing" in warning and str(folder) in warning


def test_the_first_address_that_can_be_had_is_taken_silently(folder, dead_url, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_first([folder, dead_url], retries=0).source == str(folder)
    assert not caplog.records


def test_every_address_is_listed_with_its_reason_when_none_can_be_had(dead_url, hub_cache, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        load_first([dead_url, "nobody/nothing", tmp_path / "absent.pth"], retries=0)
    message = str(caught.value)
    assert f"{dead_url}: the server cannot be reached" in message
    assert "nobody/nothing: neither" in message
    assert "absent.pth: there is no such file" in message


def test_a_damaged_file_is_not_passed_over(folder, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
        load_first([tmp_path / "damaged.safetensors", folder])


def test_other_numbers_of_heads_are_an_error_though_the_shapes_agree(folder, model):
    weights = load_address(folder)
    heads = (model.config.vision_sizes.num_heads, model.text_config.num_attention_heads)
    weights.check_heads(*heads)
    with pytest.raises(CheckpointError, match=r"made for 4 heads, but model\.med_config.* is 8; set it to 4"):
        weights.check_heads(heads[0], 8)
    with pytest.raises(CheckpointError, match=r"model\.vit_type\.num_heads is 2"):
        weights.check_heads(2, heads[1])


def test_published_files_and_hub_repositories_lead_to_each_other():
    for name, hub_name in HUB_NAMES.items():
        assert same_weights(URLS[name]) == [hub_name]
        assert same_weights(hub_name) == [URLS[name]]
    assert same_weights(URLS["model_base"]) == []
    assert same_weights("/home/somebody/model_base.pth") == []


def test_every_address_in_the_default_configs_is_a_published_one():
    import lavis_lite

    configs = Path(lavis_lite.__file__).parent / "configs" / "models"
    named = {
        line.split(": ", 1)[1].strip()
        for file in configs.glob("*.yaml")
        for line in file.read_text().splitlines()
        if "https://" in line
    }
    assert named and named <= set(URLS.values())
