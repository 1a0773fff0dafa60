"""ITC, ITM and LM against the paper's formulas, written out pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from counting import count_projections
from torch import Tensor

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.registry import registry

TEXTS = ["a red circle", "a small star", "a blue heart on a gray background", "two green squares"]
SIZES = {"queue_size": 10, "embed_dim": 16}
TRAINING = {"epoch": 0, "iters": 30, "num_iters_per_epoch": 40}


def build(name: str, **settings: object):
    torch.manual_seed(0)
    model = load_model(name, "tiny", **SIZES, **settings).train()
    with torch.no_grad():
        for twin in (model.visual_encoder_m, model.text_encoder_m, model.vision_proj_m, model.text_proj_m):
            for parameter in twin.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        for parameter in model.itm_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(ids: list[int] | None = None, count: int = 4) -> dict[str, object]:
    generator = torch.Generator().manual_seed(3)
    samples = {
        "image": torch.randn(count, 3, 64, 64, generator=generator),
        "text_input": TEXTS[:count],
        **TRAINING,
    }
    return samples | ({} if ids is None else {"image_id": torch.tensor(ids)})


def normalised(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def ids_of(model, text: str, first: int | None = None) -> Tensor:
    token_ids = model.tokenizer(text, return_tensors="pt").input_ids
    if first is not None:
        token_ids[0, 0] = first
    return token_ids


def reference_itc(model, samples, alpha: float, shared: bool) -> Tensor:
    """Image i against every text of batch and queue, and text i against every image, in loops."""
    count = len(samples["text_input"])
    own = {"image": [], "text": []}
    slow = {"image": [], "text": []}
    for i in range(count):
        image, token_ids = samples["image"][i : i + 1], ids_of(model, samples["text_input"][i])
        own["image"].append(normalised(model.vision_proj(model.visual_encoder(image)[0, 0])))
        own["text"].append(normalised(model.text_proj(model.text_encoder(token_ids, mode="text")[0, 0])))
        with torch.no_grad():
            slow["image"].append(normalised(model.vision_proj_m(model.visual_encoder_m(image)[0, 0])))
            states = model.text_encoder_m(token_ids, mode="text")
            slow["text"].append(normalised(model.text_proj_m(states[0, 0])))
    queues = {"image": list(model.image_queue.T), "text": list(model.text_queue.T)}
    losses = []
    for here, there in (("image", "text"), ("text", "image")):
        everything = slow[there] + queues[there]
        for i in range(count):
            if shared:
                all_ids = samples["image_id"].tolist() + model.idx_queue[0].tolist()
                same = [float(other == samples["image_id"][i]) for other in all_ids]
                hard = [value / sum(same) for value in same]
            else:
                hard = [float(j == i) for j in range(len(everything))]
            scores = [torch.dot(own[here][i], other) / model.temp for other in everything]
            slow_scores = [
                math.exp(float(torch.dot(slow[here][i], other) / model.temp)) for other in everything
            ]
            log_sum = torch.logsumexp(torch.stack(scores), 0)
            loss = 0.0
            for j, score in enumerate(scores):
                target = alpha * slow_scores[j] / sum(slow_scores) + (1 - alpha) * hard[j]
                loss = loss - target * (score - log_sum)
            losses.append(loss)
    return sum(losses) / len(losses)


def reference_itm(model, samples, negative_images, negative_texts) -> Tensor:
    """Each pair by itself, texts without padding; -1 stands for no negative."""
    count = len(samples["text_input"])
    pairs = [(i, i, 1) for i in range(count)]
    pairs += [(int(negative_images[i]), i, 0) for i in range(count) if negative_images[i] >= 0]
    pairs += [(i, int(negative_texts[i]), 0) for i in range(count) if negative_texts[i] >= 0]
    losses = []
    for image, text, label in pairs:
        image_embeds = model.visual_encoder(samples["image"][image : image + 1])
        token_ids = ids_of(model, samples["text_input"][text], model.enc_token_id)
        image_kv = model.text_encoder.project_image(image_embeds)
        states = model.text_encoder(token_ids, mode="multimodal", image_kv=image_kv)
        logits = model.itm_head(states[0, 0])
        losses.append(torch.logsumexp(logits, 0) - logits[label])
    return sum(losses) / len(losses)


def reference_lm(model, samples) -> Tensor:
    """Each next token of each text, with a tenth of the target spread over the vocabulary."""
    losses = []
    for i, text in enumerate(samples["text_input"]):
        image_kv = model.text_decoder.bert.project_image(model.visual_encoder(samples["image"][i : i + 1]))
        token_ids = ids_of(model, text, model.dec_token_id)
        logits = model.text_decoder.head(model.text_decoder(token_ids, None, image_kv))[0]
        for place in range(token_ids.shape[1] - 1):
            log_probabilities = logits[place].log_softmax(0)
            losses.append(-0.9 * log_probabilities[token_ids[0, place + 1]] - 0.1 * log_probabilities.mean())
    return sum(losses) / len(losses)


def gradients(model, loss: Tensor) -> dict[str, float]:
    model.zero_grad()
    loss.backward()
    return {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.requires_grad}


def assert_same_gradients(model, found: Tensor, expected: Tensor) -> None:
    ours, reference = gradients(model, found), gradients(model, expected)
    assert ours.keys() == reference.keys()
    for name, norm in reference.items():
        assert ours[name] == pytest.approx(norm, rel=1e-4, abs=1e-5), name


def test_pretraining_computes_the_papers_three_losses():
    model, samples = build("blip_pretrain"), batch()
    output = model(samples)
    inner = output.intermediate_output
    alpha = 0.4 * 30 / 80
    itc = reference_itc(model, samples, alpha, shared=False)
    itm = reference_itm(model, samples, inner.negative_images, inner.negative_texts)
    lm = reference_lm(model, samples)
    assert output.loss_itc.item() == pytest.approx(itc.item(), abs=1e-5)
    assert output.loss_itm.item() == pytest.approx(itm.item(), abs=1e-5)
    assert output.loss_lm.item() == pytest.approx(lm.item(), abs=1e-5)
    assert_same_gradients(model, output.loss, itc + itm + lm)


def test_retrieval_computes_the_papers_two_losses_with_shared_targets():
    model, samples = build("blip_retrieval"), batch(ids=[7, 8, 7, 9])
    model.idx_queue[0, :3] = torch.tensor([7, 5, 9])
    output = model(samples)
    inner = output.intermediate_output
    itc = reference_itc(model, samples, 0.4 * 30 / 40, shared=True)
    itm = reference_itm(model, samples, inner.negative_images, inner.negative_texts)
    assert output.loss_itc.item() == pytest.approx(itc.item(), abs=1e-5)
    assert output.loss_itm.item() == pytest.approx(itm.item(), abs=1e-5)
    assert_same_gradients(model, output.loss, itc + itm)


def test_the_same_image_is_never_its_own_negative():
    model = build("blip_retrieval")
    for seed in range(20):
        samples = batch(ids=[7, 8, 7, 9]) | {"iters": seed}
        inner = model(samples).intermediate_output
        for i in range(4):
            assert samples["image_id"][inner.negative_images[i]] != samples["image_id"][i]
            assert samples["image_id"][inner.negative_texts[i]] != samples["image_id"][i]


def test_pairs_without_a_negative_are_left_out():
    model, samples = build("blip_retrieval"), batch(ids=[7, 7, 7, 7])
    nothing = torch.full((4,), -1)
    expected = reference_itm(model, samples, nothing, nothing)
    assert model(samples).loss_itm.item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_batch_of_one_pair_trains():
    output = build("blip_pretrain")(batch(count=1))
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("name", ["blip_pretrain", "blip_retrieval"])
def test_momentum_copies_follow_once_a_step_and_queues_wrap_around(name):
    model, samples = build(name), batch(ids=[1, 2, 3, 4])
    queue = model.image_queue.clone()
    slow = model.visual_encoder_m.norm.weight.clone()
    pushed = []
    for step in range(3):
        inner = model(samples).intermediate_output
        with torch.no_grad():
            vectors = model.vision_proj_m(inner.image_embeds_m[:, 0])
        pushed.append(torch.nn.functional.normalize(vectors, dim=-1))
        assert torch.equal(model.image_queue, queue), "the backward pass still needs the old features"
        with torch.no_grad():
            model.visual_encoder.norm.weight.add_(0.1)
        model.after_step()
        slow = 0.995 * slow + 0.005 * model.visual_encoder.norm.weight
        torch.testing.assert_close(model.visual_encoder_m.norm.weight, slow)
        for row in range(4):
            queue[:, (4 * step + row) % 10] = pushed[step][row]
        torch.testing.assert_close(model.image_queue, queue)
        assert int(model.queue_ptr) == (4 * step + 4) % 10


def test_a_step_that_is_left_out_leaves_the_queues_alone():
    model = build("blip_pretrain")
    queue = model.image_queue.clone()
    model(batch())
    model.after_skipped_step()
    model.after_step()
    assert torch.equal(model.image_queue, queue)


def test_evaluating_fills_no_queue():
    model = build("blip_pretrain").eval()
    queue = model.image_queue.clone()
    model(batch())
    model.after_step()
    assert torch.equal(model.image_queue, queue)


def test_a_pretraining_step_projects_each_image_once_a_layer():
    model = build("blip_pretrain")
    with count_projections(model.text_encoder) as rows:
        model(batch())
    assert rows == [4] * len(model.text_encoder.layers)


def test_encoder_and_decoder_share_all_but_self_attention():
    model = build("blip_pretrain")
    encoder, decoder = model.text_encoder, model.text_decoder.bert
    assert encoder.embeddings is decoder.embeddings
    for ours, theirs in zip(encoder.layers, decoder.layers, strict=True):
        assert ours.crossattention is theirs.crossattention
        assert ours.output is theirs.output
        assert ours.attention is not theirs.attention
    keys = model.state_dict().keys()
    assert "text_encoder.encoder.layer.0.crossattention.self.key.weight" in keys
    assert "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight" in keys


@pytest.mark.parametrize("sharing", ["all", "all but cross-attention", "none"])
def test_other_sharings_of_text_parameters_train(sharing):
    model = build("blip_pretrain", shared_text_parameters=sharing)
    model(batch()).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_weights_without_momentum_or_queues_start_copies_equal_and_queues_anew():
    source, target = build("blip_pretrain"), build("blip_retrieval")
    weights = {
        key: value
        for key, value in source.state_dict().items()
        if "_m." not in key and not key.endswith("queue")
    }
    target.load_weights(weights, source="pretraining")
    for name, parameter in target.visual_encoder.named_parameters():
        assert torch.equal(parameter, target.visual_encoder_m.get_parameter(name))
    assert (target.idx_queue == -100).all()


def test_blips_name_of_the_queue_pointer_is_understood():
    source, target = build("blip_retrieval"), build("blip_retrieval")
    weights = source.state_dict()
    weights["ptr_queue"] = weights.pop("queue_ptr") + 7
    target.load_weights(weights, source="a file of BLIP")
    assert int(target.queue_ptr) == 7


def test_a_missing_weight_is_named():
    source, target = build("blip_retrieval"), build("blip_retrieval")
    weights = source.state_dict()
    del weights["itm_head.weight"]
    with pytest.raises(CheckpointError, match=r"itm_head\.weight"):
        target.load_weights(weights, source="a file")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "entries"), [("blip_retrieval", 949), ("blip_pretrain", 1272)])
def test_the_base_models_have_the_published_number_of_weights(name, entries):
    sizes = {"tokenizer": "shapes", "queue_size": 8, "load_pretrained": False}
    model_type = {"blip_retrieval": "coco", "blip_pretrain": "base"}[name]
    with torch.device("meta"):
        model = registry.get_model_class(name).from_pretrained(model_type, load_finetuned=False, **sizes)
    assert len(model.state_dict()) == entries
