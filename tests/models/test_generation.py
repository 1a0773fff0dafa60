"""Generation on the captioner itself: prompts, seeds, settings, and how much work is done."""

from __future__ import annotations

import pytest
import torch

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.models.blip_models.blip_caption import BlipCaption


@pytest.fixture(scope="module")
def model() -> BlipCaption:
    from conftest import TINY_SIZES

    torch.manual_seed(3)
    model = BlipCaption.from_config({**TINY_SIZES, "tokenizer": "shapes", "prompt": "a picture of "})
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "rules", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "repetition_penalty": 1.4}]
)
def test_prompts_of_different_lengths_come_out_as_they_do_alone(model, image, rules):
    prompts = ["", "a picture of ", "there is a red circle above a"]
    rules = {"max_length": 16, "min_length": 0, "no_repeat_ngram_size": 2, **rules}
    together = model.generate({"image": image}, prompt=prompts, **rules)
    alone = [
        model.generate({"image": image[i : i + 1]}, prompt=prompt, **rules)[0]
        for i, prompt in enumerate(prompts)
    ]
    assert together == alone


def test_the_prompt_is_not_part_of_the_caption(model, image):
    model.text_decoder.head.bias.data[model.tokenizer.sep_token_id] = 1e4  # always ends at once
    try:
        assert model.generate({"image": image}, min_length=0) == ["", "", ""]
    finally:
        model.text_decoder.head.bias.data[model.tokenizer.sep_token_id] = 0.0


def test_sampling_with_a_seed_is_repeatable_and_without_one_is_not(model, image):
    draw = {"use_nucleus_sampling": True, "top_p": 1.0, "top_k": 0, "max_length": 20}
    assert model.generate({"image": image}, seed=1, **draw) == model.generate(
        {"image": image}, seed=1, **draw
    )
    assert model.generate({"image": image}, seed=1, **draw) != model.generate(
        {"image": image}, seed=2, **draw
    )
    assert model.generate({"image": image}, **draw) != model.generate({"image": image}, **draw)


def test_a_seed_an_image_makes_its_captions_independent_of_the_batch(model, image):
    draw = {"use_nucleus_sampling": True, "top_p": 1.0, "top_k": 0, "max_length": 20, "num_captions": 2}
    together = model.generate({"image": image}, seed=[1, 2, 3], **draw)
    alone = model.generate({"image": image[2:]}, seed=[3], **draw)
    assert together[4:] == alone


def test_nucleus_sampling_with_no_mass_to_spare_is_greedy(model, image):
    rules = {"max_length": 16, "min_length": 0}
    greedy = model.generate({"image": image}, num_beams=1, use_nucleus_sampling=False, **rules)
    assert model.generate({"image": image}, use_nucleus_sampling=True, top_p=1e-6, **rules) == greedy
    assert model.generate({"image": image}, use_nucleus_sampling=True, top_k=1, **rules) == greedy


def test_sampled_tokens_follow_the_probabilities():
    """A decoder with fixed logits: the nucleus keeps 0.5 and 0.3 and leaves out the rest."""
    from lavis_lite.common.settings import GenerationSettings
    from lavis_lite.models.generation import generate

    probabilities = torch.tensor([0.0, 0.5, 0.3, 0.15, 0.05])

    class Fixed:
        def prefill(self, input_ids, lengths):
            return probabilities.log().expand(len(input_ids), -1)

        def step(self, token_ids):
            return probabilities.log().expand(len(token_ids), -1)

        def select(self, rows):
            pass

    settings = GenerationSettings(use_nucleus_sampling=True, top_p=0.7, top_k=0, max_length=2, min_length=0)
    prompt = torch.zeros(1, 1, dtype=torch.long)
    rows = generate(
        Fixed(), prompt, torch.tensor([1]), settings, eos_id=0, pad_id=0, num_captions=8000, seed=0
    )[0]
    counts = torch.bincount(torch.cat(rows), minlength=5) / 8000
    assert counts[3] == counts[4] == 0
    assert counts[1].item() == pytest.approx(0.5 / 0.8, abs=0.02)


def test_more_captions_than_beams_is_an_error(model, image):
    with pytest.raises(ValueError, match="num_captions=4 needs at least as many beams"):
        model.generate({"image": image}, num_beams=3, num_captions=4)


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None])
def test_a_number_of_captions_that_cannot_be_is_an_error(model, image, number):
    with pytest.raises(ValueError, match="num_captions must be a whole number of at least 1"):
        model.generate({"image": image}, num_captions=number)


def test_a_prompt_that_fills_the_caption_is_an_error(model, image):
    with pytest.raises(ValueError, match="max_length is 4 tokens, prompt included"):
        model.generate({"image": image}, max_length=4, min_length=0)


def test_a_setting_out_of_range_is_an_error(model, image):
    with pytest.raises(ConfigError, match=r"generate.top_p: must lie in \(0, 1\]"):
        model.generate({"image": image}, top_p=1.5)


def test_defaults_come_from_the_checkpoint(model, image, tmp_path):
    other = BlipCaption(model.config)
    settings = {**model.inference_settings()["generation"], "num_beams": 1, "max_length": 7, "min_length": 1}
    torch.save({"model": model.state_dict(), "inference": {"generation": settings}}, tmp_path / "weights.pth")
    other.load_checkpoint(tmp_path / "weights.pth")
    expected = model.generate({"image": image}, num_beams=1, max_length=7, min_length=1)
    assert other.eval().generate({"image": image}) == expected


def test_an_image_is_projected_once_a_layer_for_a_whole_beam_search(model, image):
    calls: list[int] = []
    hooks = [
        layer.crossattention.self[part].register_forward_hook(
            lambda module, args, out: calls.append(len(out))
        )
        for layer in model.text_decoder.bert.layers
        for part in ("key", "value")
    ]
    try:
        model.generate({"image": image}, num_beams=4, max_length=20, min_length=20)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == [len(image)] * 2 * len(model.text_decoder.bert.layers)


def test_several_captions_of_an_image_encode_it_once_and_give_the_same_loss(model, image):
    texts = [["a picture of a red circle", "a picture of a blue star"], ["a picture of a heart"] * 2]
    grouped = model({"image": image[:2], "text_input": [text for two in texts for text in two]})
    separate = model(
        {"image": image[:2].repeat_interleave(2, 0), "text_input": [text for two in texts for text in two]}
    )
    assert grouped.loss.item() == pytest.approx(separate.loss.item(), abs=1e-6)
    assert len(grouped.intermediate_output.image_embeds) == 2


def test_only_labeled_positions_are_projected_to_the_vocabulary(model, image):
    output = model(
        {"image": image, "text_input": ["a picture of a red circle", "a picture of a", "a picture of"]}
    )
    labels = output.intermediate_output.decoder_labels[:, 1:]
    assert len(output.intermediate_output.decoder_output.label_logits) == int((labels != -100).sum())
    assert output.loss_weight == (labels != -100).sum()
