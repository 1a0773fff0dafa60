"""Files in the layout of the published checkpoints, written here key by key, load into each model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError

VISION, DEPTH, PATCH, PATCHES = 48, 2, 8, 36  # 48 pixels: the models below take 32
TEXT, LAYERS, INNER, POSITIONS, EMBED, QUEUE = 32, 12, 64, 40, 24, 12
SIZES = {
    "vit_type": {"embed_dim": VISION, "depth": DEPTH, "num_heads": 3, "patch_size": PATCH},
    "image_size": 32,
    "med_config": {
        "hidden_size": TEXT,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
    },
}


@pytest.fixture(scope="module")
def words() -> int:
    """Entries of the vocabulary that the models below have."""
    return len(load_model("blip_caption", "tiny", **SIZES).tokenizer)


def linear(name: str, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outer, inner)
    yield f"{name}.bias", (outer,)


def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def vision(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.cls_token", (1, 1, VISION)
    yield f"{name}.pos_embed", (1, 1 + PATCHES, VISION)
    yield f"{name}.patch_embed.proj.weight", (VISION, 3, PATCH, PATCH)
    yield f"{name}.patch_embed.proj.bias", (VISION,)
    for i in range(DEPTH):
        block = f"{name}.blocks.{i}"
        yield from norm(f"{block}.norm1", VISION)
        yield from linear(f"{block}.attn.qkv", VISION, 3 * VISION)
        yield from linear(f"{block}.attn.proj", VISION, VISION)
        yield from norm(f"{block}.norm2", VISION)
        yield from linear(f"{block}.mlp.fc1", VISION, 4 * VISION)
        yield from linear(f"{block}.mlp.fc2", 4 * VISION, VISION)
    yield from norm(f"{name}.norm", VISION)


def attention(name: str, keys_from: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from linear(f"{name}.self.query", TEXT, TEXT)
    yield from linear(f"{name}.self.key", keys_from, TEXT)
    yield from linear(f"{name}.self.value", keys_from, TEXT)
    yield from linear(f"{name}.output.dense", TEXT, TEXT)
    yield from norm(f"{name}.output.LayerNorm", TEXT)


def two_image_attention(name: str, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for image in (0, 1):
        yield from linear(f"{name}.self{image}.query", TEXT, TEXT)
        yield from linear(f"{name}.self{image}.key", VISION, TEXT)
        yield from linear(f"{name}.self{image}.value", VISION, TEXT)
        yield from linear(f"{name}.output.dense{image}", TEXT, TEXT)
    yield from norm(f"{name}.output.LayerNorm", TEXT)
    if layer >= 6:
        yield from linear(f"{name}.output.merge_layer", 2 * TEXT, TEXT)


def bert(
    name: str, words: int, keys_from: int | None = None, images: int = 1
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.embeddings.word_embeddings.weight", (words, TEXT)
    yield f"{name}.embeddings.position_embeddings.weight", (POSITIONS, TEXT)
    yield from norm(f"{name}.embeddings.LayerNorm", TEXT)
    yield f"{name}.embeddings.position_ids", (1, POSITIONS)
    for i in range(LAYERS):
        layer = f"{name}.encoder.layer.{i}"
        yield from attention(f"{layer}.attention", TEXT)
        if images == 2:
            yield from two_image_attention(f"{layer}.crossattention", i)
        else:
            yield from attention(f"{layer}.crossattention", keys_from or VISION)
        yield from linear(f"{layer}.intermediate.dense", TEXT, INNER)
        yield from linear(f"{layer}.output.dense", INNER, TEXT)
        yield from norm(f"{layer}.output.LayerNorm", TEXT)


def decoder(words: int, keys_from: int | None = None) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from bert("text_decoder.bert", words, keys_from)
    head = "text_decoder.cls.predictions"
    yield f"{head}.bias", (words,)
    yield from linear(f"{head}.transform.dense", TEXT, TEXT)
    yield from norm(f"{head}.transform.LayerNorm", TEXT)
    yield from linear(f"{head}.decoder", TEXT, words)


def common_space(suffix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from linear(f"vision_proj{suffix}", VISION, EMBED)
    yield from linear(f"text_proj{suffix}", TEXT, EMBED)


def contrastive(words: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from vision("visual_encoder")
    yield from bert("text_encoder", words)
    yield from common_space()
    yield from vision("visual_encoder_m")
    yield from bert("text_encoder_m", words)
    yield from common_space("_m")
    yield from linear("itm_head", TEXT, 2)
    yield "temp", ()
    yield "image_queue", (EMBED, QUEUE)
    yield "text_queue", (EMBED, QUEUE)


def layout(model: str, words: int, pointer: str = "queue_ptr") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each key of the published file of a model, with its shape."""
    if model == "blip_pretrain":
        yield from contrastive(words)
        yield from decoder(words)
        yield pointer, (1,)
    elif model == "blip_retrieval":
        yield from contrastive(words)
        yield "idx_queue", (1, QUEUE)
        yield pointer, (1,)
    elif model == "blip_caption":
        yield from vision("visual_encoder")
        yield from decoder(words)
    elif model == "blip_vqa":
        yield from vision("visual_encoder")
        yield from bert("text_encoder", words)
        yield from decoder(words, keys_from=TEXT)
    elif model == "blip_nlvr":
        yield from vision("visual_encoder")
        yield from bert("text_encoder", words, images=2)
        yield from linear("cls_head.0", TEXT, TEXT)
        yield from linear("cls_head.2", TEXT, 2)
    else:
        raise AssertionError(model)


def published_file(folder: Path, model: str, words: int, pointer: str = "queue_ptr") -> Path:
    """Write a checkpoint with random weights as the training code of BLIP saves it."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for key, shape in layout(model, words, pointer):
        if key.endswith("position_ids"):
            weights[key] = torch.arange(POSITIONS)[None]
        elif key == pointer:
            weights[key] = torch.tensor([4])
        elif key == "idx_queue":
            weights[key] = torch.full((1, QUEUE), -100)
        else:
            weights[key] = torch.randn(shape, generator=generator) * 0.1
    tie(weights)
    path = folder / f"{model}.pth"
    torch.save({"model": weights, "optimizer": {}, "config": {"queue_size": QUEUE}, "epoch": 5}, path)
    return path


def tie(weights: dict[str, Tensor]) -> None:
    """Give what pretraining shares, and what the head always shares, one value."""
    head = "text_decoder.cls.predictions"
    if f"{head}.decoder.weight" in weights:
        weights[f"{head}.decoder.weight"] = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
        weights[f"{head}.decoder.bias"] = weights[f"{head}.bias"]
    if "image_queue" in weights and f"{head}.bias" in weights:
        for key in [key for key in weights if key.startswith("text_encoder.") and ".attention." not in key]:
            weights[key] = weights["text_decoder.bert." + key.removeprefix("text_encoder.")]


CASES = [
    # the file, its pointer, and the models that people load it into
    ("blip_pretrain", "queue_ptr", "blip_pretrain"),
    ("blip_pretrain", "queue_ptr", "blip_caption"),
    ("blip_pretrain", "queue_ptr", "blip_retrieval"),
    ("blip_pretrain", "queue_ptr", "blip_nlvr"),
    ("blip_pretrain", "queue_ptr", "blip_feature_extractor"),
    ("blip_pretrain", "queue_ptr", "blip_classification"),
    ("blip_retrieval", "ptr_queue", "blip_retrieval"),
    ("blip_retrieval", "queue_ptr", "blip_retrieval"),
    ("blip_retrieval", "ptr_queue", "blip_image_text_matching"),
    ("blip_caption", "", "blip_caption"),
    ("blip_vqa", "", "blip_vqa"),
    ("blip_nlvr", "", "blip_nlvr"),
]
OWN = {
    "blip_pretrain": {"queue_size": QUEUE, "embed_dim": EMBED},
    "blip_retrieval": {"queue_size": QUEUE, "embed_dim": EMBED},
    "blip_image_text_matching": {"embed_dim": EMBED},
    "blip_feature_extractor": {"embed_dim": EMBED},
    "blip_classification": {"num_classes": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "pointer", "model"), CASES)
def test_a_published_file_loads_into_the_models_that_use_it(file, pointer, model, words, tmp_path):
    path = published_file(tmp_path, file, words, pointer)
    weights = torch.load(path, weights_only=True)["model"]
    loaded = load_model(model, "tiny", checkpoint=path, **{**SIZES, **OWN.get(model, {})}).state_dict()
    compared = 0
    for key, tensor in loaded.items():
        new_queue = "queue" in key and file != model  # without ids they are of no use to retrieval
        if key in weights and weights[key].shape == tensor.shape and not new_queue:
            torch.testing.assert_close(tensor, weights[key], atol=0, rtol=0)
            compared += 1
    assert compared > 100
    assert loaded["visual_encoder.pos_embed"].shape == (1, 1 + 16, VISION)


def test_a_pretrained_decoder_answers_questions_where_images_are_as_wide_as_texts(
    words, tmp_path, monkeypatch
):
    """Answers are read from the states of the question; every published ViT-B has both widths equal."""
    monkeypatch.setattr(sys.modules[__name__], "VISION", TEXT)
    path = published_file(tmp_path, "blip_pretrain", words)
    vit_type = {"embed_dim": TEXT, "depth": DEPTH, "num_heads": 4, "patch_size": PATCH}
    loaded = load_model("blip_vqa", "tiny", checkpoint=path, **{**SIZES, "vit_type": vit_type}).state_dict()
    weights = torch.load(path, weights_only=True)["model"]
    assert loaded.keys() <= weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in loaded if not key.endswith("pos_embed"))


@pytest.mark.parametrize(
    "model", ["blip_pretrain", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr"]
)
def test_our_own_weights_have_exactly_the_published_names(model, words):
    ours = load_model(model, "tiny", **{**SIZES, **OWN.get(model, {})}).state_dict()
    theirs = dict(layout(model, words))
    assert set(ours) == set(theirs)
    another_size = "visual_encoder.pos_embed", "visual_encoder_m.pos_embed"
    assert not [key for key in ours if tuple(ours[key].shape) != theirs[key] and key not in another_size]


def test_the_queues_and_their_pointer_are_taken_over(words, tmp_path):
    path = published_file(tmp_path, "blip_retrieval", words, "ptr_queue")
    model = load_model("blip_retrieval", "tiny", checkpoint=path, **SIZES, **OWN["blip_retrieval"])
    held = torch.load(path, weights_only=True)["model"]
    assert torch.equal(model.state_dict()["image_queue"], held["image_queue"])
    assert model.state_dict()["queue_ptr"].item() == 4


def test_the_file_of_one_layout_comes_back_bit_for_bit(words, tmp_path):
    path = published_file(tmp_path, "blip_retrieval", words, "ptr_queue")
    sizes = {**SIZES, **OWN["blip_retrieval"], "image_size": 48}
    model = load_model("blip_retrieval", "tiny", checkpoint=path, **sizes)
    again = torch.load(model.save_salesforce(tmp_path / "again.pth", "ptr_queue"), weights_only=True)["model"]
    held = torch.load(path, weights_only=True)["model"]
    assert again.keys() == held.keys()
    assert all(torch.equal(again[key], held[key]) and again[key].dtype == held[key].dtype for key in held)


@pytest.mark.parametrize(
    "model", ["blip_pretrain", "blip_retrieval", "blip_caption", "blip_vqa", "blip_nlvr"]
)
def test_a_missing_and_a_misshapen_key_are_both_named(model, words, tmp_path):
    path = published_file(tmp_path, model, words)
    content = torch.load(path, weights_only=True)
    del content["model"]["visual_encoder.blocks.1.norm2.bias"]
    part = "text_decoder.bert" if model == "blip_caption" else "text_encoder"
    misshapen = f"{part}.encoder.layer.3.output.dense.weight"
    content["model"][misshapen] = torch.zeros(3, 5)
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(model, "tiny", checkpoint=path, **{**SIZES, **OWN.get(model, {})})
    assert "visual_encoder.blocks.1.norm2.bias" in str(caught.value)
    assert f"{misshapen} (3, 5), needed ({TEXT}, {INNER})" in str(caught.value)
