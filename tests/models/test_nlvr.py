"""Reasoning over pairs of images, against a reference written from the published weights' names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError

TEXT = "the left image shows two red circles"


def build():
    torch.manual_seed(0)
    model = load_model("blip_nlvr", "tiny", is_eval=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def batch(count: int = 2) -> dict[str, object]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image0": torch.randn(count, 3, 64, 64, generator=generator),
        "image1": torch.randn(count, 3, 64, 64, generator=generator),
        "text_input": [TEXT, "both images show a star"][:count],
        "label": torch.tensor([1, 0])[:count],
    }


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normalise(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)


def attend(weights: dict[str, Tensor], name: str, x: Tensor, y: Tensor, heads: int) -> Tensor:
    """One text `x` (length, width) looks at `y` (tokens, width), head by head."""
    queries, keys, values = (
        linear(weights, f"{name}.{part}", z) for part, z in (("query", x), ("key", y), ("value", y))
    )
    size = queries.shape[1] // heads
    seen = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / size**0.5
        seen.append(scores.softmax(-1) @ values[:, part])
    return torch.cat(seen, dim=1)


def reference(model, image0: Tensor, image1: Tensor, text: str) -> Tensor:
    """The logits of one pair and sentence, from the state dict."""
    weights, heads = model.state_dict(), model.text_config.num_attention_heads
    first, second = (model.visual_encoder(image[None])[0] for image in (image0, image1))
    ids = model.tokenizer(text, return_tensors="pt").input_ids[0]
    ids[0] = model.enc_token_id
    embeddings = "text_encoder.embeddings"
    x = weights[f"{embeddings}.word_embeddings.weight"][ids]
    x = x + weights[f"{embeddings}.position_embeddings.weight"][: len(ids)]
    x = normalise(weights, f"{embeddings}.LayerNorm", x)
    layers = model.text_config.num_hidden_layers
    for index in range(layers):
        layer = f"text_encoder.encoder.layer.{index}"
        seen = attend(weights, f"{layer}.attention.self", x, x, heads)
        seen = linear(weights, f"{layer}.attention.output.dense", seen)
        x = normalise(weights, f"{layer}.attention.output.LayerNorm", seen + x)
        cross = f"{layer}.crossattention"
        left = linear(weights, f"{cross}.output.dense0", attend(weights, f"{cross}.self0", x, first, heads))
        right = linear(weights, f"{cross}.output.dense1", attend(weights, f"{cross}.self1", x, second, heads))
        if index < layers // 2:
            both = (left + right) / 2
        else:
            both = linear(weights, f"{cross}.output.merge_layer", torch.cat((left, right), dim=1))
        x = normalise(weights, f"{cross}.output.LayerNorm", both + x)
        inner = F.gelu(linear(weights, f"{layer}.intermediate.dense", x))
        x = normalise(
            weights, f"{layer}.output.LayerNorm", linear(weights, f"{layer}.output.dense", inner) + x
        )
    return linear(weights, "cls_head.2", F.relu(linear(weights, "cls_head.0", x[0])))


@torch.no_grad()
def test_logits_equal_a_straight_computation_from_the_weights(model):
    samples = batch()
    found = model.predict(samples)["predictions"]
    for row in range(2):
        expected = reference(
            model, samples["image0"][row], samples["image1"][row], samples["text_input"][row]
        )
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_order_of_the_images_matters(model):
    samples = batch()
    swapped = samples | {"image0": samples["image1"], "image1": samples["image0"]}
    assert not torch.allclose(model.predict(samples)["predictions"], model.predict(swapped)["predictions"])


def test_the_loss_is_the_cross_entropy_of_the_labels(model):
    samples = batch()
    output = model(samples)
    predictions = model.predict(samples)
    expected = F.cross_entropy(predictions["predictions"], predictions["targets"])
    assert output["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    output["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_weights_of_one_image_are_doubled():
    single = load_model("blip_image_text_matching", "tiny").state_dict()
    model = build()
    model.load_weights(single, source="one image")
    weights, cross = model.state_dict(), "text_encoder.encoder.layer.1.crossattention"
    for number in (0, 1):
        assert torch.equal(weights[f"{cross}.self{number}.key.weight"], single[f"{cross}.self.key.weight"])
        assert torch.equal(
            weights[f"{cross}.output.dense{number}.bias"], single[f"{cross}.output.dense.bias"]
        )


def test_an_nlvr_checkpoint_must_be_whole(model):
    weights = model.state_dict()
    del weights["cls_head.2.weight"]
    with pytest.raises(CheckpointError, match=r"cls_head\.2\.weight"):
        build().load_weights(weights, source="half a file")


def test_a_missing_image_is_refused_in_words(model):
    samples = batch()
    with pytest.raises(ValueError, match="2 and 1 images for 2 sentences"):
        model(samples | {"image1": samples["image1"][:1]})
