"""The text transformer: three roles of one network."""

from __future__ import annotations

import pytest
import torch

from lavis_lite.models.layers.cached_decoder import CachedDecoder
from lavis_lite.models.layers.med import TextDecoder, TextTransformer
from lavis_lite.models.layers.text_config import TextConfig


@pytest.fixture(scope="module")
def config() -> TextConfig:
    return TextConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=16,
        vocab_size=40,
        encoder_width=20,
        initializer_range=0.3,
    )


@pytest.fixture(scope="module")
def decoder(config) -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(config).eval()


@pytest.fixture(scope="module")
def image_kv(decoder):
    return decoder.bert.project_image(torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def input_ids() -> torch.Tensor:
    return torch.randint(1, 40, (2, 6), generator=torch.Generator().manual_seed(2))


def changed(ids: torch.Tensor, place: int) -> torch.Tensor:
    ids = ids.clone()
    ids[:, place] = (ids[:, place] + 7) % 39 + 1
    return ids


def test_text_mode_sees_both_directions_and_no_image(decoder, input_ids):
    before = decoder.bert(input_ids, mode="text")
    after = decoder.bert(changed(input_ids, 5), mode="text")
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_multimodal_mode_sees_the_image(decoder, input_ids, image_kv):
    swapped = [type(kv)(kv.keys.flip(0), kv.values.flip(0)) for kv in image_kv]
    ours = decoder.bert(input_ids, mode="multimodal", image_kv=image_kv)
    other = decoder.bert(input_ids, mode="multimodal", image_kv=swapped)
    assert not torch.allclose(ours, other)


def test_decoder_mode_sees_only_what_stands_before(decoder, input_ids, image_kv):
    before = decoder(input_ids, None, image_kv)
    after = decoder(changed(input_ids, 4), None, image_kv)
    assert torch.allclose(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_padding_changes_nothing(decoder, input_ids, image_kv, mode):
    padded = torch.cat((input_ids, torch.zeros(2, 3, dtype=torch.long)), 1)
    mask = (torch.arange(9) < 6).long().expand(2, -1)
    kv = None if mode == "text" else image_kv
    short = decoder.bert(input_ids, torch.ones_like(input_ids), mode=mode, image_kv=kv)
    long = decoder.bert(padded, mask, mode=mode, image_kv=kv)
    assert torch.allclose(short, long[:, :6], atol=1e-5)


def test_texts_of_one_image_side_by_side_are_the_same_as_apart(decoder, input_ids, image_kv):
    texts = torch.cat([input_ids, changed(input_ids, 2)])[[0, 2, 1, 3]]  # an image's texts adjacent
    together = decoder.bert(texts, mode="multimodal", image_kv=image_kv)
    first = decoder.bert(texts[[0, 2]], mode="multimodal", image_kv=image_kv)
    second = decoder.bert(texts[[1, 3]], mode="multimodal", image_kv=image_kv)
    assert torch.allclose(together[[0, 2]], first, atol=1e-5)
    assert torch.allclose(together[[1, 3]], second, atol=1e-5)


def test_masked_image_tokens_are_not_seen(decoder, input_ids):
    embeds = torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(1))
    other = embeds.clone()
    other[:, 3:] = 9.0
    mask = (torch.arange(5) < 3).expand(2, 1, 1, 5)
    one, two = (
        decoder.bert(input_ids, mode="multimodal", image_kv=decoder.bert.project_image(e), image_mask=mask)
        for e in (embeds, other)
    )
    assert torch.allclose(one, two)


def test_decoding_step_by_step_gives_the_logits_of_the_whole(decoder, input_ids, image_kv):
    whole = decoder.head(decoder(input_ids, None, image_kv))
    cached = CachedDecoder(decoder, image_kv, max_length=8)
    steps = [cached.prefill(input_ids[:, :3], torch.tensor([3, 3]))]
    steps += [cached.step(input_ids[:, place]) for place in range(3, 6)]
    assert torch.allclose(torch.stack(steps, 1), whole[:, 2:], atol=1e-5)


def test_state_dict_has_the_published_names(config):
    keys = set(TextDecoder(config).state_dict())
    assert {
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.position_ids",
        "bert.encoder.layer.1.attention.self.query.weight",
        "bert.encoder.layer.1.attention.output.dense.bias",
        "bert.encoder.layer.1.attention.output.LayerNorm.weight",
        "bert.encoder.layer.0.crossattention.self.key.weight",
        "bert.encoder.layer.0.intermediate.dense.weight",
        "bert.encoder.layer.0.output.LayerNorm.bias",
        "cls.predictions.bias",
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    } <= keys


def test_the_head_is_the_word_embedding_matrix(decoder):
    assert decoder.head.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert decoder.head.bias is decoder.head.decoder.bias


def test_modes_that_need_an_image_say_so(config, input_ids):
    with pytest.raises(AssertionError, match="do not go together"):
        TextTransformer(config)(input_ids, mode="multimodal")
