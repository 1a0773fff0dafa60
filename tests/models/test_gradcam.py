"""GradCAM of the matching head: the right numbers, for any size, and a picture of them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lavis_lite import load_model
from lavis_lite.models.gradcam import compute_gradcam, draw_heat_map

TEXTS = ["a red circle", "a small green star above a blue square"]


def matcher(**settings):
    torch.manual_seed(0)
    model = load_model("blip_image_text_matching", "tiny", is_eval=True, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "patch", "heads"), [(64, 16, 4), (96, 16, 2), (64, 8, 8)])
def test_every_token_has_a_map_of_the_patches(size, patch, heads):
    model = matcher(
        image_size=size,
        vit_type={"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": patch},
        med_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": heads}
        | {"intermediate_size": 64, "max_position_embeddings": 64},
    )
    maps, logits = compute_gradcam(model, images(size), TEXTS, block_num=1)
    lengths = [len(model.tokenizer(text).input_ids) for text in TEXTS]
    assert [tuple(of_image.shape) for of_image in maps] == [
        (1 + length, size // patch, size // patch) for length in lengths
    ]
    assert all((of_image >= 0).all() and of_image.sum() > 0 for of_image in maps)
    expected = model({"image": images(size), "text_input": TEXTS}, match_head="itm")
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_the_maps_are_attention_times_its_positive_gradient():
    """The gradient is measured: each weight of attention is nudged, and the logit watched."""
    model = matcher().double()
    layer = model.text_encoder.layers[0].crossattention
    text, picture = TEXTS[:1], images(64)[:1].double()
    maps, _ = compute_gradcam(model, picture, text, block_num=0)

    image_kv = model.text_encoder.project_image(model.encode_image(picture))
    ids, mask = model.tokenize(text)
    layer.records_weights = True
    model.match_logits(ids, mask, image_kv)
    attention = layer.recorded_weights.detach()[0]  # (heads, length, tokens)
    layer.records_weights = False

    token, patch, step = 2, 5, 1e-5
    heat = 0.0
    for head in range(attention.shape[0]):
        nudge = torch.zeros_like(attention)
        nudge[head, token, 1 + patch] = step
        logits = [logit_with_nudge(model, ids, mask, image_kv, sign * nudge) for sign in (1, -1)]
        gradient = (logits[0] - logits[1]) / (2 * step)
        heat += attention[head, token, 1 + patch].item() * max(gradient, 0.0)
    expected = heat / attention.shape[0]
    # behind [ENC] and the mean of the words stands the first word
    assert maps[0][1 + token].flatten()[patch].item() == pytest.approx(expected, rel=1e-3, abs=1e-9)


def logit_with_nudge(model, ids, mask, image_kv, nudge) -> float:
    """Return the match logit with `nudge` (heads, length, tokens) added to the first layer's attention."""
    attend = model.text_encoder.layers[0].crossattention
    values = image_kv[0].values[0]  # (heads, tokens, head_dim)
    change = (nudge @ values).transpose(0, 1).flatten(1)[None]  # what it adds to the context

    def add(module, arguments):
        hidden, residual = arguments
        return hidden + change, residual

    handle = attend.output.register_forward_pre_hook(add)
    try:
        return model.match_logits(ids, mask, image_kv)[0, 1].item()
    finally:
        handle.remove()


def test_the_second_map_is_the_mean_of_the_words():
    maps, _ = compute_gradcam(matcher(), images(64), TEXTS, block_num=1)
    for of_image in maps:
        torch.testing.assert_close(of_image[1], of_image[2:-1].mean(0))


def test_a_neighbour_changes_nothing():
    model = matcher()
    together, _ = compute_gradcam(model, images(64), TEXTS, block_num=1)
    alone, _ = compute_gradcam(model, images(64)[:1], TEXTS[:1], block_num=1)
    torch.testing.assert_close(together[0], alone[0], atol=1e-6, rtol=1e-4)


def test_nothing_of_the_model_is_changed():
    model = matcher().train()
    model.requires_grad_(False)
    maps, _ = compute_gradcam(model, images(64), TEXTS, block_num=0)
    assert model.training and maps[0].sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert model.text_encoder.layers[0].crossattention.recorded_weights is None


@pytest.mark.parametrize(
    ("texts", "block_num", "message"),
    [(TEXTS, 9, "layers 0 to"), (TEXTS[:1], 0, "1 texts for 2 images")],
)
def test_what_cannot_be_is_said(texts, block_num, message):
    with pytest.raises(ValueError, match=message):
        compute_gradcam(matcher(), images(64), texts, block_num=block_num)


def test_a_drawing_is_hot_where_the_map_is_and_lets_the_image_through_where_it_is_cold():
    image = Image.new("RGB", (80, 60), (10, 200, 30))
    heat = torch.zeros(3, 4)
    heat[0, 3] = 2.0
    drawn = draw_heat_map(image, heat, opacity=0.6)
    assert drawn.size == image.size
    assert drawn.getpixel((5, 55)) == (10, 200, 30)
    red, green, blue = drawn.getpixel((72, 6))
    assert red > 90 and green < 100 and blue < 40


def test_a_flat_map_leaves_the_image_as_it_is():
    image = Image.new("RGB", (20, 20), (1, 2, 3))
    assert draw_heat_map(image, torch.full((2, 2), 0.3)).getpixel((9, 9)) == (1, 2, 3)


def test_many_maps_at_once_are_refused():
    with pytest.raises(ValueError, match="one map"):
        draw_heat_map(Image.new("RGB", (8, 8)), torch.zeros(2, 3, 3))
