"""Answers: agreement with transformers, ranking against brute force, padding, work."""

from __future__ import annotations

import pytest
import torch
from counting import count_projections
from transformers import BlipConfig, BlipForQuestionAnswering

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.registry import registry
from lavis_lite.models.weights.adapters.transformers import to_transformers

QUESTIONS = ["what colour is the large star?", "how many circles?", "is there a heart?"]
ANSWERS = [
    "red",
    "blue",
    "yes",
    "no",
    "2",
    "light blue",
    "a large star",
    "gray background",
    "on the left",
    "3",
]


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def build(**settings: object):
    torch.manual_seed(0)
    model = load_model("blip_vqa", "tiny", is_eval=True, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def peer(model):
    text, vision = model.text_config, model.config.vision_sizes
    tokens = {
        "bos_token_id": model.dec_token_id,
        "eos_token_id": model.tokenizer.sep_token_id,
        "sep_token_id": model.tokenizer.sep_token_id,
        "pad_token_id": model.tokenizer.pad_token_id,
    }
    config = BlipConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "encoder_hidden_size": text.encoder_width,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "max_position_embeddings": text.max_position_embeddings,
            "label_smoothing": 0.1,
            **tokens,
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
    )
    peer = BlipForQuestionAnswering(config).eval()
    missing, unexpected = peer.load_state_dict(to_transformers(model.state_dict()), strict=False)
    assert not unexpected
    assert not [key for key in missing if "position_ids" not in key]
    return peer


@torch.no_grad()
def test_an_answers_loss_equals_that_of_transformers(model, peer):
    samples = {"image": images(1), "text_input": QUESTIONS[:1]}
    question_ids, _ = model.tokenize(QUESTIONS[:1], model.enc_token_id)
    for answer in ANSWERS:
        answer_ids, _ = model.tokenize([answer], model.dec_token_id)
        theirs = peer(input_ids=question_ids, pixel_values=images(1), labels=answer_ids).loss
        ours = model({**samples, "answer": [answer], "n_answers": [1], "weight": [1.0]}).loss
        per_token = ours / (answer_ids.shape[1] - 1)
        assert per_token.item() == pytest.approx(float(theirs.mean()), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_generated_answers_equal_those_of_transformers(model, peer, beams):
    question_ids, attention_mask = model.tokenize(["is there a star?"] * 30, model.enc_token_id)
    samples = {"image": images(30), "text_input": ["is there a star?"] * 30}
    theirs = peer.generate(
        input_ids=question_ids,
        pixel_values=images(30),
        attention_mask=attention_mask,
        num_beams=beams,
        max_length=10,
        min_length=1,
    )
    expected = [text.strip() for text in model.tokenizer.batch_decode(theirs, skip_special_tokens=True)]
    found = model.predict_answers(samples, num_beams=beams, inference_method="generate")
    assert found == expected
    assert len(set(found)) > 1


@torch.no_grad()
@pytest.mark.parametrize("method", ["rank", "generate"])
def test_a_question_is_answered_in_a_batch_as_it_is_alone(model, method):
    samples = {"image": images(), "text_input": QUESTIONS}
    settings = {"inference_method": method, "answer_list": ANSWERS}
    together = model.predict_answers(samples, **settings)
    for number, question in enumerate(QUESTIONS):
        alone = {"image": images()[number][None], "text_input": [question]}
        assert model.predict_answers(alone, inference_method=method, answer_list=ANSWERS) == [
            together[number]
        ]


@torch.no_grad()
def test_padding_a_question_changes_no_loss(model):
    answer = {"answer": ["2"], "weight": [1.0]}
    own = {"image": images(1), "text_input": QUESTIONS[1:2], "n_answers": [1], **answer}
    padded = {
        "image": images(1).repeat(2, 1, 1, 1),
        "text_input": [QUESTIONS[1], "a much longer question about stars and circles and hearts?"],
        "n_answers": [1, 0],
        **answer,
    }
    assert (2 * model(padded).loss).item() == pytest.approx(model(own).loss.item(), abs=1e-5)


def brute_force(model, image, question, answers, candidates) -> str:
    """Score each answer by itself: first by its first token, then whole, with label smoothing."""
    asked = model.read_question({"image": image[None], "text_input": [question]})
    ids = [model.tokenize([answer], model.dec_token_id)[0] for answer in answers]
    start = torch.tensor([[model.dec_token_id]])
    first = model.text_decoder.head(model.text_decoder(start, None, asked.kv, asked.mask))[0, 0]
    order = sorted(range(len(answers)), key=lambda i: -float(first[ids[i][0, 1]]))[:candidates]
    losses = {}
    for i in order:
        logits = model.text_decoder.head(model.text_decoder(ids[i], None, asked.kv, asked.mask))[0]
        loss = 0.0
        for place in range(ids[i].shape[1] - 1):
            log_probabilities = logits[place].log_softmax(0)
            loss += float(-0.9 * log_probabilities[ids[i][0, place + 1]] - 0.1 * log_probabilities.mean())
        losses[i] = loss
    return answers[min(losses, key=losses.get)]


@torch.no_grad()
@pytest.mark.parametrize("candidates", [1, 4, 128])
def test_ranking_equals_scoring_each_answer_by_itself(model, candidates):
    found = model.predict_answers(
        {"image": images(6), "text_input": QUESTIONS * 2},
        answer_list=ANSWERS,
        num_ans_candidates=candidates,
    )
    for number, answer in enumerate(found):
        assert answer == brute_force(model, images(6)[number], (QUESTIONS * 2)[number], ANSWERS, candidates)


@torch.no_grad()
def test_ranking_projects_a_question_once_a_layer(model):
    with count_projections(model.text_decoder.bert) as rows:
        model.predict_answers({"image": images(), "text_input": QUESTIONS}, answer_list=ANSWERS)
    assert rows == [3] * len(model.text_decoder.bert.layers)


def test_answers_in_one_list_a_question_count_alike(model):
    samples = {"image": images(2), "text_input": QUESTIONS[:2]}
    listed = model(samples | {"answer": [["red", "blue"], ["2"]]}).loss
    flat = samples | {"answer": ["red", "blue", "2"], "n_answers": [2, 1], "weight": [0.5, 0.5, 1.0]}
    assert model(flat).loss.item() == pytest.approx(listed.item(), abs=1e-6)


def test_the_loss_is_a_weighted_sum_over_answers_and_a_mean_over_questions(model):
    image, question = images(1), QUESTIONS[:1]

    def loss_of(answers, weights):
        samples = {"image": image, "text_input": question, "answer": answers}
        return model(samples | {"n_answers": [len(answers)], "weight": weights}).loss.item()

    together = loss_of(["red", "light blue"], [0.3, 0.7])
    assert together == pytest.approx(
        0.3 * loss_of(["red"], [1.0]) + 0.7 * loss_of(["light blue"], [1.0]), rel=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inference_method": "ranking"}, "did you mean rank"),
        ({}, "needs answer_list"),
        ({"answer_list": []}, "needs answer_list"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.predict_answers({"image": images(1), "text_input": QUESTIONS[:1]}, **settings)


@pytest.mark.parametrize(("vit", "entries"), [("base", 791), ("large", 935)])
def test_the_published_number_of_weights(vit, entries):
    model_class = registry.get_model_class("blip_vqa")
    settings = {"load_finetuned": False, "load_pretrained": False, "tokenizer": "shapes"}
    with torch.device("meta"):
        model = model_class.from_pretrained("vqav2", vit_type=vit, **settings)
    assert len(model.state_dict()) == entries
    decoder_key = "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight"
    assert model.state_dict()[decoder_key].shape == (768, 768)


def test_pretrained_weights_start_a_question_answerer_even_of_another_vision_width():
    sizes = {"vit_type": {"embed_dim": 64, "depth": 1, "num_heads": 4, "patch_size": 16}}
    pretrained = load_model("blip_pretrain", "tiny", **sizes).state_dict()
    model = load_model("blip_vqa", "tiny", **sizes)
    model.load_weights(pretrained, source="pretraining")
    key = "text_decoder.bert.encoder.layer.0.attention.self.key.weight"
    assert torch.equal(model.state_dict()[key], pretrained[key])
    del pretrained["text_decoder.bert.encoder.layer.0.crossattention.self.query.weight"]
    with pytest.raises(CheckpointError, match=r"crossattention\.self\.query\.weight"):
        model.load_weights(pretrained, source="pretraining")
