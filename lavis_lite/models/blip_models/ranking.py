"""Retrieval over a split: ITC finds candidates, ITM re-ranks the best of them (paper section 5.1)."""

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

# Score of a pair that is not a candidate, below those of candidates.
NO_CANDIDATE = -100.0


@dataclass
class _Images:
    """The images of this rank.

    Attributes:
        numbers: (images,) of the split.
        embeddings: (images, embed_dim).
        hidden: hidden states of each batch; None if they need too much memory.
    """

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
    """Return scores (images, texts) and (texts, images), the same on all ranks.

    The score of a candidate is its match logit plus its ITC similarity; all others have -100. A pair that
    is a candidate in both directions is read once.

    Args:
        model: a matcher.
        data_loader: yields {"image" or "video", "index"}, this rank's share of the images; a second time if
            their hidden states need more memory than `rerank_cache_bytes`.
        texts: all texts.
        image_count: number of images of all ranks; an image that cannot be read is never a candidate.
        settings: how to rank.
    """
    text_embeddings = _embed_texts(model, texts, settings.text_batch_size)
    images = _embed_images(model, data_loader, settings)
    numbers = distributed.gather_rows(images.numbers)
    embeddings = distributed.gather_rows(images.embeddings)
    similarities = torch.full((image_count, len(texts)), NO_CANDIDATE, device=embeddings.device)
    similarities[numbers] = (embeddings @ text_embeddings.T).float()
    if not settings.rerank:
        return similarities.cpu().numpy(), similarities.T.cpu().numpy()

    best_texts = _best(similarities, settings.k_test)
    best_images = _best(similarities.T, settings.k_test)
    candidates = best_texts | best_images.T
    scores = _rerank(model, data_loader, texts, images, candidates, settings)
    scores = scores + torch.where(candidates, similarities, 0.0).cpu()
    image_to_text = torch.where(best_texts.cpu(), scores, NO_CANDIDATE)
    text_to_image = torch.where(best_images.cpu(), scores.T, NO_CANDIDATE)
    return image_to_text.numpy(), text_to_image.numpy()


def _best(similarities: Tensor, k: int) -> Tensor:
    """Return (rows, columns), true on each row's `k` largest."""
    k = min(k, similarities.shape[1])
    is_best = torch.zeros_like(similarities, dtype=torch.bool)
    return is_best.scatter_(1, similarities.topk(k, dim=1).indices, True)


def _embed_texts(model: BlipMatcher, texts: Sequence[str], batch: int) -> Tensor:
    """Return embeddings (texts, embed_dim); each rank computes a share of them."""
    share = -(-len(texts) // distributed.world_size())
    texts = texts[distributed.rank() * share : (distributed.rank() + 1) * share]
    # Texts of similar length are in one batch, so that little is padding.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    embeddings = torch.zeros(len(texts), model.config.embed_dim, device=model.device)
    for start in range(0, len(texts), batch):
        rows = order[start : start + batch]
        embeddings[rows] = model.embed_texts([texts[index] for index in rows]).float()
    return distributed.gather_rows(embeddings)


def _embed_images(
    model: BlipMatcher, data_loader: Iterable[Mapping[str, Any]], settings: RankingSettings
) -> _Images:
    numbers = [torch.zeros(0, dtype=torch.long)]
    embeddings = [torch.zeros(0, model.config.embed_dim, device=model.device)]
    hidden: list[Tensor] | None = [] if settings.rerank else None
    cached_bytes = 0
    for samples in data_loader:
        if "index" not in samples:
            continue  # no image of the batch could be read
        image_embeds, embedded = model.read_visual(_on_device(model, samples))
        numbers.append(torch.as_tensor(samples["index"]))
        embeddings.append(embedded.float())
        cached_bytes += image_embeds.nbytes
        if hidden is not None:
            hidden = None if cached_bytes > settings.rerank_cache_bytes else [*hidden, image_embeds]
    return _Images(torch.cat(numbers).to(model.device), torch.cat(embeddings), hidden)


def _hidden_states(
    model: BlipMatcher, data_loader: Iterable[Mapping[str, Any]], images: _Images
) -> Iterable[Tensor]:
    """Yield the hidden states of each batch of images again."""
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
    candidates: Tensor,
    settings: RankingSettings,
) -> Tensor:
    """Return match logits (images, texts) on the CPU, 0 where `candidates` is false."""
    input_ids, attention_mask = model.tokenize(texts)
    scores = torch.zeros(candidates.shape)
    numbers = iter(images.numbers.tolist())
    for batch in _hidden_states(model, data_loader, images):
        for image_embeds in batch:
            number = next(numbers)
            rows = candidates[number].nonzero().flatten()
            logits = model.match_one_image(
                image_embeds[None],
                input_ids[rows],
                attention_mask[rows],
                settings.rerank_max_tokens,
            )
            scores[number, rows.cpu()] = logits[:, 1].cpu()
    return distributed.sum_over_ranks(scores.to(model.device)).cpu()
