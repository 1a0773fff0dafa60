"""Retrieval over a whole split: ITC finds candidates, ITM re-ranks the best of them (paper section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_lite.common import distributed
from lavis_lite.common.settings import RankingSettings
from lavis_lite.models.blip_models.matcher import BlipMatcher

# The score of a pair that was no candidate: below all that were.
NO_CANDIDATE = -100.0


@dataclass
class _Images:
    """This rank's images: their numbers, their embeddings, and their hidden states while they fit."""

    numbers: Tensor
    embeddings: Tensor
    hidden: list[Tensor] | None


@torch.no_grad()
def rank_images_and_texts(
    model: BlipMatcher,
    data_loader: Iterable[Mapping[str, Any]],
    texts: Sequence[str],
    image_count: int,
    settings: RankingSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (images, texts) and (texts, images).

    The score of a candidate is its match logit plus its ITC similarity; all else has -100. Each rank
    reads its share of the images; all ranks return the same. A pair that is a candidate in both
    directions is read once.

    Args:
        data_loader: yields {"image" or "video", "index"}, this rank's share of the images. It is read a
            second time where the hidden states do not fit into `rerank_cache_bytes`.
        texts: all of them.
        image_count: how many images there are, of all ranks; one that cannot be read is no candidate.
    """
    text_embeddings = _embed_texts(model, texts, settings.text_batch_size)
    images = _embed_images(model, data_loader, settings)
    numbers = distributed.gather_rows(images.numbers)
    embeddings = distributed.gather_rows(images.embeddings)
    similarities = torch.full((image_count, len(texts)), NO_CANDIDATE, device=embeddings.device)
    similarities[numbers] = (embeddings @ text_embeddings.T).float()
    if not settings.rerank:
        return similarities.cpu().numpy(), similarities.T.cpu().numpy()

    of_images = _best(similarities, settings.k_test)
    of_texts = _best(similarities.T, settings.k_test)
    wanted = of_images | of_texts.T
    scores = _rerank(model, data_loader, texts, images, wanted, settings)
    scores = scores + torch.where(wanted, similarities, 0.0).cpu()
    image_to_text = torch.where(of_images.cpu(), scores, NO_CANDIDATE)
    text_to_image = torch.where(of_texts.cpu(), scores.T, NO_CANDIDATE)
    return image_to_text.numpy(), text_to_image.numpy()


def _best(similarities: Tensor, k: int) -> Tensor:
    """Return (rows, columns), true on each row's `k` largest."""
    k = min(k, similarities.shape[1])
    chosen = torch.zeros_like(similarities, dtype=torch.bool)
    return chosen.scatter_(1, similarities.topk(k, dim=1).indices, True)


def _embed_texts(model: BlipMatcher, texts: Sequence[str], batch: int) -> Tensor:
    """Return the embeddings (texts, embed_dim), each rank having made its share."""
    share = -(-len(texts) // distributed.world_size())
    own = texts[distributed.rank() * share : (distributed.rank() + 1) * share]
    # texts of similar length together, so that little is padding
    order = sorted(range(len(own)), key=lambda index: len(own[index]))
    embeddings = torch.zeros(len(own), model.config.embed_dim, device=model.device)
    for start in range(0, len(own), batch):
        chosen = order[start : start + batch]
        embeddings[chosen] = model.embed_texts([own[index] for index in chosen]).float()
    return distributed.gather_rows(embeddings)


def _embed_images(
    model: BlipMatcher, data_loader: Iterable[Mapping[str, Any]], settings: RankingSettings
) -> _Images:
    numbers = [torch.zeros(0, dtype=torch.long)]
    embeddings = [torch.zeros(0, model.config.embed_dim, device=model.device)]
    hidden: list[Tensor] | None = [] if settings.rerank else None
    kept = 0
    for samples in data_loader:
        if "index" not in samples:
            continue  # none of them could be read
        image_embeds, embedded = model.read_visual(_on_device(model, samples))
        numbers.append(torch.as_tensor(samples["index"]))
        embeddings.append(embedded.float())
        kept += image_embeds.nbytes
        if hidden is not None:
            hidden = None if kept > settings.rerank_cache_bytes else [*hidden, image_embeds]
    return _Images(torch.cat(numbers).to(model.device), torch.cat(embeddings), hidden)


def _hidden_states(
    model: BlipMatcher, data_loader: Iterable[Mapping[str, Any]], images: _Images
) -> Iterable[Tensor]:
    """Yield the hidden states of each batch of this rank's images once more."""
    if images.hidden is not None:
        yield from images.hidden
        return
    for samples in data_loader:
        if "index" in samples:
            yield model.encode_visual(_on_device(model, samples))


def _on_device(model: BlipMatcher, samples: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: samples[key].to(model.device) for key in ("image", "video") if key in samples}


def _rerank(
    model: BlipMatcher,
    data_loader: Iterable[Mapping[str, Any]],
    texts: Sequence[str],
    images: _Images,
    wanted: Tensor,
    settings: RankingSettings,
) -> Tensor:
    """Return match logits (images, texts) on the CPU, 0 where `wanted` is false."""
    input_ids, attention_mask = model.tokenize(texts)
    scores = torch.zeros(wanted.shape)
    numbers = iter(images.numbers.tolist())
    for batch in _hidden_states(model, data_loader, images):
        for image_embeds in batch:
            number = next(numbers)
            candidates = wanted[number].nonzero().flatten()
            logits = model.match_one_image(
                image_embeds[None],
                input_ids[candidates],
                attention_mask[candidates],
                settings.rerank_max_tokens,
            )
            scores[number, candidates.cpu()] = logits[:, 1].cpu()
    return distributed.sum_over_ranks(scores.to(model.device)).cpu()
