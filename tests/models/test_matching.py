"""Image-text matching: heads, conventions, re-ranking, and agreement with transformers."""

from __future__ import annotations

import pytest
import torch
from counting import count_projections
from transformers import BlipConfig, BlipForImageTextRetrieval

from lavis_lite import load_model
from lavis_lite.common.registry import registry
from lavis_lite.models.weights.adapters.transformers import to_transformers

TEXTS = ["a red circle", "a small star", "a blue heart on a gray background"]


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def build(**settings: object):
    torch.manual_seed(0)
    model = load_model("blip_image_text_matching", "tiny", is_eval=True, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def peer_of(model) -> BlipForImageTextRetrieval:
    text, vision = model.text_config, model.config.vision_sizes
    config = BlipConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "encoder_hidden_size": text.encoder_width,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "max_position_embeddings": text.max_position_embeddings,
        },
        vision_config={
            "hidden_size": vision.embed_dim,
            "intermediate_size": 4 * vision.embed_dim,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "image_size": model.config.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": model.config.vit_layer_norm_epsilon,
        },
        image_text_hidden_size=model.config.embed_dim,
    )
    peer = BlipForImageTextRetrieval(config).eval()
    missing, unexpected = peer.load_state_dict(to_transformers(model.state_dict()), strict=False)
    assert not unexpected
    assert not [key for key in missing if "position_ids" not in key]
    return peer


@torch.no_grad()
def test_match_logits_and_similarities_equal_those_of_transformers():
    model = build(itm_first_token="cls")
    peer = peer_of(model)
    input_ids, attention_mask = model.tokenize(TEXTS)
    samples = {"image": images(), "text_input": TEXTS}
    theirs = peer(pixel_values=images(), input_ids=input_ids, attention_mask=attention_mask)
    torch.testing.assert_close(model(samples, match_head="itm"), theirs.itm_score, rtol=0, atol=1e-4)
    theirs = peer(
        pixel_values=images(), input_ids=input_ids, attention_mask=attention_mask, use_itm_head=False
    )
    torch.testing.assert_close(model(samples, match_head="itc"), theirs.itm_score, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_first_token_is_the_whole_difference_between_the_two_conventions(model):
    other = build(itm_first_token="cls")
    input_ids, attention_mask = model.tokenize(TEXTS)
    image_kv = model.text_encoder.project_image(model.encode_image(images()))
    as_trained = model.match_logits(input_ids, attention_mask, image_kv)
    input_ids[:, 0] = model.enc_token_id
    assert torch.equal(other.match_logits(input_ids, attention_mask, image_kv), as_trained)
    input_ids[:, 0] = model.tokenizer.cls_token_id
    assert not torch.allclose(other.match_logits(input_ids, attention_mask, image_kv), as_trained)


@torch.no_grad()
def test_padding_changes_no_score(model):
    image_kv = model.text_encoder.project_image(model.encode_image(images()))
    short = model.match_logits(*model.tokenize(TEXTS), image_kv)
    long = model.match_logits(*model.tokenize(TEXTS, padding="max_length"), image_kv)
    torch.testing.assert_close(short, long, rtol=0, atol=1e-5)


@torch.no_grad()
def test_candidates_of_an_image_score_as_they_do_alone(model):
    texts = [TEXTS * 8, TEXTS[:1], TEXTS[1:]]
    for max_tokens in (30, 1000):
        scored = model.match_candidates(model.encode_image(images()), texts, max_tokens)
        for number, candidates in enumerate(texts):
            for text, logits in zip(candidates, scored[number], strict=True):
                alone = model({"image": images()[number : number + 1], "text_input": [text]})
                torch.testing.assert_close(logits, alone[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_scoring_many_texts_projects_an_image_once_a_layer(model):
    with count_projections(model.text_encoder) as rows:
        model.match_candidates(model.encode_image(images(1)), [TEXTS * 30])
    assert rows == [1] * len(model.text_encoder.layers)


@torch.no_grad()
def test_several_texts_an_image_in_one_call(model):
    texts = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]
    logits = model({"image": images(2), "text_input": texts})
    for row, text in enumerate(texts):
        alone = model({"image": images(2)[row // 2][None], "text_input": [text]})
        torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_ids_made_elsewhere_are_ranked(model):
    image_embeds = model.encode_image(images())
    input_ids, _ = model.tokenize(TEXTS)
    ranked = model.itm_rank(image_embeds, None, input_ids)
    torch.testing.assert_close(ranked, model({"image": images(), "text_input": TEXTS}).softmax(1)[:, 1])
    everywhere = torch.ones(image_embeds.shape[:2])
    torch.testing.assert_close(model.itm_rank(image_embeds, everywhere, input_ids), ranked)
    similarities = model({"image": images(), "text_input": TEXTS}, match_head="itc")
    torch.testing.assert_close(model.itm_rank(image_embeds, None, input_ids, "itc"), similarities)


@torch.no_grad()
def test_embeddings_have_length_one_and_give_the_similarities(model):
    image, text = model.embed_images(images()), model.embed_texts(TEXTS)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        image @ text.T, model({"image": images(), "text_input": TEXTS}, match_head="itc")
    )


def test_what_cannot_be_scored_is_refused_in_words(model):
    with pytest.raises(ValueError, match="choose 'itm' or 'itc'"):
        model({"image": images(), "text_input": TEXTS}, match_head="itn")
    with pytest.raises(ValueError, match="4 texts cannot be divided evenly among 3 images"):
        model({"image": images(), "text_input": [*TEXTS, "a star"]})


@pytest.mark.parametrize(("model_type", "entries"), [("base", 473), ("large", 617)])
def test_the_published_number_of_weights(model_type, entries):
    model_class = registry.get_model_class("blip_image_text_matching")
    with torch.device("meta"):
        model = model_class.from_pretrained(
            model_type, load_finetuned=False, load_pretrained=False, tokenizer="shapes"
        )
    assert len(model.state_dict()) == entries


def test_a_retrieval_checkpoint_loads_without_what_only_training_needs(model):
    retrieval = load_model("blip_retrieval", "tiny")
    model = build()
    model.load_weights(retrieval.state_dict(), source="retrieval")
    assert torch.equal(model.itm_head.weight, retrieval.itm_head.weight)
