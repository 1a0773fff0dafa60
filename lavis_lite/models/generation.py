"""Greedy search, beam search and nucleus sampling over any network that returns next-token logits.

The searches know nothing of images or layers: they call a `Decoder`. Prompts of a batch may have different
lengths; each text is the same as alone. `max_length` and `min_length` include the prompt. Beam search
scores and stops as that of transformers 5, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lavis_lite.common.settings import GenerationSettings

# Lower than any sum of log-probabilities, and finite, so that sums with it keep their order.
IMPOSSIBLE = -1.0e9


class Decoder(Protocol):
    """Interface that the searches call."""

    def prefill(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (rows, vocab) after right-padded prompts (rows, longest)."""

    def step(self, token_ids: Tensor) -> Tensor:
        """Append `token_ids` (rows,); return logits (rows, vocab)."""

    def select(self, rows: Tensor) -> None:
        """Continue with `rows` (indices, which may repeat)."""


@dataclass
class Rows:
    """Texts that grow: `tokens` (rows, max_length), of which the first `lengths` (rows,) are set."""

    tokens: Tensor
    lengths: Tensor

    @classmethod
    def start(cls, prompt_ids: Tensor, prompt_lengths: Tensor, max_length: int, pad_id: int) -> Rows:
        tokens = prompt_ids.new_full((prompt_ids.shape[0], max_length), pad_id)
        tokens[:, : prompt_ids.shape[1]] = prompt_ids
        return cls(tokens, prompt_lengths.clone())

    @property
    def filled(self) -> Tensor:
        """(rows, max_length), true where there is a token."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    def select(self, rows: Tensor) -> Rows:
        return Rows(self.tokens[rows], self.lengths[rows])

    def append(self, token_ids: Tensor) -> Rows:
        """Append one token to each row; in a full row, which is finished, it replaces the last."""
        last_slot = self.tokens.shape[1] - 1
        tokens = self.tokens.scatter(1, self.lengths.clamp(max=last_slot)[:, None], token_ids[:, None])
        return Rows(tokens, (self.lengths + 1).clamp(max=last_slot + 1))


def generate(
    decoder: Decoder,
    prompt_ids: Tensor,
    prompt_lengths: Tensor,
    settings: GenerationSettings,
    *,
    eos_id: int,
    pad_id: int,
    num_captions: int = 1,
    seed: int | Sequence[int] | None = None,
) -> list[list[Tensor]]:
    """Return, for each prompt, `num_captions` rows of generated token ids, without prompt and end token.

    Args:
        decoder: the network, with its images.
        prompt_ids: (images, longest), padded on the right.
        prompt_lengths: (images,), each at least 1 and below `settings.max_length`.
        settings: how to generate.
        eos_id: token that ends a text.
        pad_id: token that fills up rows.
        num_captions: sampled independently, or the best finished beams.
        seed: of sampling: one for the batch, or one for each image, so that its captions do not depend on
            the rest of the batch. None draws from torch's global generator.

    Raises:
        ValueError: a prompt fills `max_length`, or `num_captions` is more than `num_beams`.
    """
    if int(prompt_lengths.max()) >= settings.max_length:
        raise ValueError(
            f"max_length is {settings.max_length} tokens, prompt included, but a prompt has "
            f"{int(prompt_lengths.max())}. Raise max_length or shorten the prompt."
        )
    rows = Rows.start(prompt_ids, prompt_lengths, settings.max_length, pad_id)
    if settings.use_nucleus_sampling:
        finished = _sample(decoder, prompt_ids, rows, settings, eos_id, num_captions, seed)
    elif settings.num_beams == 1 and num_captions == 1:
        logits = decoder.prefill(prompt_ids, rows.lengths)
        finished = _extend(decoder, logits, rows, settings, eos_id, lambda scores, step: scores.argmax(-1))
    elif num_captions > settings.num_beams:
        raise ValueError(
            f"num_captions={num_captions} needs at least as many beams, but num_beams is "
            f"{settings.num_beams}. Raise num_beams, or set use_nucleus_sampling."
        )
    else:
        finished = _beam_search(decoder, prompt_ids, rows, settings, eos_id, num_captions)
    starts = prompt_lengths.tolist()
    texts = []
    for index, (row, length) in enumerate(zip(finished.tokens.cpu(), finished.lengths.tolist(), strict=True)):
        text = row[starts[index // num_captions] : length]
        texts.append(text[:-1] if len(text) and int(text[-1]) == eos_id else text)
    return [texts[first : first + num_captions] for first in range(0, len(texts), num_captions)]


def apply_rules(scores: Tensor, rows: Rows, settings: GenerationSettings, eos_id: int) -> Tensor:
    """Return `scores` (rows, vocab; logits or log-probabilities) after penalties and bans."""
    if settings.repetition_penalty != 1.0:
        scores = _penalize_repetition(scores, rows, settings.repetition_penalty)
    if settings.no_repeat_ngram_size > 0:
        scores = _ban_repeated_ngrams(scores, rows, settings.no_repeat_ngram_size)
    if settings.min_length > 0:
        too_short = rows.lengths < settings.min_length
        scores = scores.clone()
        scores[:, eos_id] = scores[:, eos_id].masked_fill(too_short, -torch.inf)
    return scores


def _penalize_repetition(scores: Tensor, rows: Rows, penalty: float) -> Tensor:
    """Lower the scores of the tokens that are in the row already."""
    vocab_size = scores.shape[1]
    index = rows.tokens.masked_fill(~rows.filled, vocab_size)  # empty slots go to an extra column
    seen = torch.zeros(scores.shape[0], vocab_size + 1, dtype=torch.bool, device=scores.device)
    seen = seen.scatter(1, index, True)[:, :vocab_size]
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _ban_repeated_ngrams(scores: Tensor, rows: Rows, size: int) -> Tensor:
    """Forbid each token that would complete an n-gram that is in the row already."""
    if rows.tokens.shape[1] < size:
        return scores
    windows = rows.tokens.unfold(1, size, 1)  # (rows, windows, size)
    ends = torch.arange(size, rows.tokens.shape[1] + 1, device=scores.device)
    inside = ends <= rows.lengths[:, None]
    suffix = rows.lengths[:, None] - (size - 1) + torch.arange(size - 1, device=scores.device)
    last_tokens = rows.tokens.gather(1, suffix.clamp(min=0))  # (rows, size - 1)
    repeats = inside & (windows[:, :, :-1] == last_tokens[:, None]).all(-1)
    repeats &= rows.lengths[:, None] >= size - 1
    vocab_size = scores.shape[1]
    banned = torch.zeros(scores.shape[0], vocab_size + 1, dtype=torch.bool, device=scores.device)
    banned = banned.scatter(1, windows[:, :, -1].masked_fill(~repeats, vocab_size), True)
    return scores.masked_fill(banned[:, :vocab_size], -torch.inf)


def _sample(
    decoder: Decoder,
    prompt_ids: Tensor,
    rows: Rows,
    settings: GenerationSettings,
    eos_id: int,
    num_captions: int,
    seed: int | Sequence[int] | None,
) -> Rows:
    """Sample each token from the fewest that hold `top_p` of the probability, at most `top_k`."""
    images = len(prompt_ids)
    steps = settings.max_length - int(rows.lengths.min())
    uniform = _uniform(images, num_captions, steps, seed).to(prompt_ids.device)
    logits = decoder.prefill(prompt_ids, rows.lengths)
    copies = torch.arange(images, device=prompt_ids.device).repeat_interleave(num_captions)
    decoder.select(copies)

    def draw(scores: Tensor, step: int) -> Tensor:
        candidates, ids = (scores / settings.temperature).sort(-1, descending=True)
        if settings.top_k:
            candidates = candidates[:, : settings.top_k]
        probabilities = candidates.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0.0)  # never the first
        cumulative = probabilities.cumsum(-1)
        point = uniform[:, step, None] * cumulative[:, -1:]
        # Rounding could put the point past the last candidate with probability.
        last = (probabilities > 0).sum(-1, keepdim=True) - 1
        index = torch.searchsorted(cumulative, point, right=True).minimum(last)
        return ids.gather(1, index)[:, 0]

    return _extend(decoder, logits[copies], rows.select(copies), settings, eos_id, draw)


def _uniform(images: int, num_captions: int, steps: int, seed: int | Sequence[int] | None) -> Tensor:
    """Return numbers in [0, 1), (images * num_captions, steps); the same on every device."""
    if seed is None or isinstance(seed, int):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return torch.rand(images * num_captions, steps, generator=generator)
    if len(seed) != images:
        raise ValueError(f"seed has {len(seed)} numbers for {images} images; give one for each image.")
    draws = [torch.rand(num_captions, steps, generator=torch.Generator().manual_seed(s)) for s in seed]
    return torch.cat(draws)


def _extend(
    decoder: Decoder,
    logits: Tensor,
    rows: Rows,
    settings: GenerationSettings,
    eos_id: int,
    choose: Callable[[Tensor, int], Tensor],
) -> Rows:
    """Append one token per step to every row until all are finished."""
    finished = torch.zeros_like(rows.lengths, dtype=torch.bool)
    step = 0
    while True:
        scores = apply_rules(logits.float(), rows, settings, eos_id)
        token_ids = choose(scores, step)
        grown = rows.append(token_ids)
        rows = Rows(
            torch.where(finished[:, None], rows.tokens, grown.tokens),
            torch.where(finished, rows.lengths, grown.lengths),
        )
        finished |= (token_ids == eos_id) | (rows.lengths >= settings.max_length)
        if bool(finished.all()):
            return rows
        logits = decoder.step(token_ids)
        step += 1


def _beam_search(
    decoder: Decoder,
    prompt_ids: Tensor,
    rows: Rows,
    settings: GenerationSettings,
    eos_id: int,
    num_captions: int,
) -> Rows:
    """Keep the `num_beams` likeliest running rows of each image, and its best finished rows beside them.

    A step looks at twice as many candidates as there are beams: even if half of them end, enough remain to
    continue with. Only candidates of the better half may become finished rows.
    """
    images, beams = len(prompt_ids), settings.num_beams
    device = prompt_ids.device
    first_rows = torch.arange(images, device=device)[:, None] * beams  # (images, 1)
    generated_room = settings.max_length - rows.lengths  # (images,)

    logits = decoder.prefill(prompt_ids, rows.lengths)
    copies = torch.arange(images, device=device).repeat_interleave(beams)
    decoder.select(copies)
    logits, running = logits[copies], rows.select(copies)  # (images * beams, ...)
    finished = running
    # All beams start from the same prompt: only the first counts, or they would all stay the same.
    running_scores = torch.full((images, beams), IMPOSSIBLE, device=device)
    running_scores[:, 0] = 0.0
    finished_scores = torch.full((images, beams), IMPOSSIBLE, device=device)
    is_finished = torch.zeros(images, beams, dtype=torch.bool, device=device)
    can_improve = torch.ones(images, 1, dtype=torch.bool, device=device)
    among_best = torch.arange(2 * beams, device=device) < beams

    generated = 0
    while True:
        generated += 1
        log_probs = apply_rules(logits.float().log_softmax(-1), running, settings, eos_id)
        vocab_size = log_probs.shape[-1]
        totals = (log_probs.view(images, beams, -1) + running_scores[:, :, None]).flatten(1)
        scores, indices = totals.topk(2 * beams)  # (images, 2 * beams), best first
        parents = first_rows + indices // vocab_size
        candidates = running.select(parents.flatten()).append((indices % vocab_size).flatten())
        ends = (indices % vocab_size == eos_id) | _by_image(candidates.lengths >= settings.max_length, images)

        # Finished rows: old and new ones compete by their score, divided by a power of their length.
        final_scores = scores / generated**settings.length_penalty
        closed = is_finished.all(1, keepdim=True) & (settings.early_stopping is True)
        final_scores = final_scores + IMPOSSIBLE * (closed | ~can_improve | ~(ends & among_best))
        finished_scores, best = torch.cat((finished_scores, final_scores), 1).topk(beams)
        is_finished = torch.cat((is_finished, ends & among_best), 1).gather(1, best)
        finished = _pick(_join(finished, candidates, images), best)

        # Running rows: the best candidates that do not end.
        running_scores, best = (scores + IMPOSSIBLE * ends).topk(beams)
        running = _pick(candidates, best)

        # The stopping rule. An image is done once its best running row cannot beat its worst finished row.
        # A running row's score only falls with every token, but it is divided by a power of the length,
        # which grows. So the bound depends on the length it is taken at: the present length (as
        # transformers does by default, although a longer row might still win), or with "never" the
        # longest, which misses nothing.
        best_length = (
            generated_room[:, None]
            if settings.early_stopping == "never" and settings.length_penalty > 0
            else torch.full_like(generated_room, generated)[:, None]
        )
        best_possible = running_scores[:, :1] / best_length**settings.length_penalty
        worst_finished = finished_scores.min(1, keepdim=True).values.where(is_finished, IMPOSSIBLE)
        can_improve = can_improve & (best_possible > worst_finished).any(1, keepdim=True)
        done = ~can_improve.any() | ends.all()
        if settings.early_stopping is True:
            done = done | is_finished.all()
        if bool(done):
            break
        decoder.select(parents.gather(1, best).flatten())
        logits = decoder.step((indices % vocab_size).gather(1, best).flatten())
    best = torch.arange(num_captions, device=device).expand(images, -1)
    return _pick(finished, best)


def _by_image(flat: Tensor, images: int) -> Tensor:
    return flat.view(images, -1, *flat.shape[1:])


def _pick(rows: Rows, columns: Tensor) -> Rows:
    """Return the rows with numbers `columns` (images, picked) among the rows of each image."""
    images = columns.shape[0]
    width = rows.lengths.shape[0] // images
    first = torch.arange(images, device=columns.device)[:, None] * width
    return rows.select((first + columns).flatten())


def _join(left: Rows, right: Rows, images: int) -> Rows:
    """Return for each image its rows of `left`, then its rows of `right`."""
    tokens = torch.cat((_by_image(left.tokens, images), _by_image(right.tokens, images)), 1)
    lengths = torch.cat((_by_image(left.lengths, images), _by_image(right.lengths, images)), 1)
    return Rows(tokens.flatten(0, 1), lengths.flatten())
