"""The exported graphs say what the model says."""

from __future__ import annotations

import pytest
import torch

from lavis_lite import load_model
from lavis_lite.models.export import (
    ENCODER_OUTPUTS,
    STEP_INPUTS,
    DecodingStep,
    ImageEncoder,
    export_decoding_step,
    export_image_encoder,
)

pytestmark = pytest.mark.slow

MAX_LENGTH = 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return load_model("blip_caption", "tiny", is_eval=True)


def images(count):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def step_inputs(model, image_count, rows_per_image):
    """The inputs of a step in the middle of a caption, as a dictionary in the order of the graph."""
    _, image_keys, image_values = ImageEncoder(model)(images(image_count))
    config = model.text_config
    rows = image_count * rows_per_image
    head_dim = config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, rows, config.num_attention_heads, MAX_LENGTH, head_dim)
    generator = torch.Generator().manual_seed(2)
    values = (
        torch.randint(5, 50, (rows,), generator=generator),
        torch.randint(0, MAX_LENGTH, (rows,), generator=generator),
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
        image_keys,
        image_values,
    )
    return dict(zip(STEP_INPUTS, values, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
def test_the_image_encoders_graph_equals_the_model_for_any_number_of_images(model, count):
    graph = export_image_encoder(model).module()
    for exported, eager in zip(graph(images(count)), ImageEncoder(model)(images(count)), strict=True):
        torch.testing.assert_close(exported, eager, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("image_count", "rows_per_image"), [(1, 1), (3, 1), (4, 3)])
def test_the_decoding_steps_graph_equals_the_model(model, image_count, rows_per_image):
    graph = export_decoding_step(model, MAX_LENGTH, rows_per_image).module()
    inputs = step_inputs(model, image_count, rows_per_image)
    for exported, eager in zip(graph(*inputs.values()), DecodingStep(model)(**inputs), strict=True):
        torch.testing.assert_close(exported, eager, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_greedy_search_over_the_graphs_gives_the_models_captions(model):
    _, image_keys, image_values = export_image_encoder(model).module()(images(2))
    step = export_decoding_step(model, MAX_LENGTH).module()
    inputs = step_inputs(model, 2, 1) | {"image_keys": image_keys, "image_values": image_values}
    inputs["self_keys"] = inputs["self_values"] = torch.zeros_like(inputs["self_keys"])
    tokens = torch.full((2, 1), model.dec_token_id)
    for position in range(MAX_LENGTH - 1):
        inputs |= {"token_ids": tokens[:, -1], "positions": torch.full((2,), position)}
        logits, inputs["self_keys"], inputs["self_values"] = step(*inputs.values())
        logits[:, model.tokenizer.sep_token_id] = -torch.inf
        tokens = torch.cat((tokens, logits.argmax(-1, keepdim=True)), dim=1)
    captions = model.generate(
        {"image": images(2)}, num_beams=1, max_length=MAX_LENGTH, min_length=MAX_LENGTH, prompt=""
    )
    assert captions == [
        text.strip() for text in model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    ]


@torch.no_grad()
def test_onnx_files_run_elsewhere_with_the_same_numbers(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export_image_encoder(model, tmp_path / "encoder.onnx")
    export_decoding_step(model, MAX_LENGTH, rows_per_image=3, onnx_file=tmp_path / "step.onnx")

    encoder = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert tuple(output.name for output in encoder.get_outputs()) == ENCODER_OUTPUTS
    ran = encoder.run(None, {"image": images(3).numpy()})
    for exported, eager in zip(ran, ImageEncoder(model)(images(3)), strict=True):
        torch.testing.assert_close(torch.from_numpy(exported), eager, rtol=1e-4, atol=1e-4)

    inputs = step_inputs(model, image_count=4, rows_per_image=3)
    step = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    ran = step.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    for exported, eager in zip(ran, DecodingStep(model)(**inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(exported), eager, rtol=1e-4, atol=1e-4)
