"""ITC with a momentum model and ITM with hard negatives, for pretraining and retrieval (section 3.2)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.common import distributed
from lavis_lite.common.batch import FILLER
from lavis_lite.common.seeding import key_seed
from lavis_lite.models.blip_models.blip_outputs import (
    BlipIntermediateOutput,
    BlipOutput,
    BlipSimilarity,
    HiddenStates,
)
from lavis_lite.models.blip_models.inputs import check_one_each, checked_samples
from lavis_lite.models.blip_models.losses import (
    Contrast,
    contrast,
    itc_loss,
    itm_loss,
    ramped_alpha,
    sample_negatives,
    shared_targets,
)
from lavis_lite.models.blip_models.matcher import BlipMatcher
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.med import TextTransformer, select_images
from lavis_lite.models.layers.momentum import (
    FeatureQueues,
    add_momentum_copies,
    update_momentum_copies,
)
from lavis_lite.models.layers.vit import BlipVisionTransformer
from lavis_lite.models.weights.adapters.salesforce import QUEUES, fit_queues, momentum_from_online


@dataclass
class Pairs:
    """A batch of matching pairs, and its place among the pairs of all ranks.

    Attributes:
        image_embeds: (pairs, tokens, width).
        input_ids: (pairs, length).
        attention_mask: (pairs, length).
        ids: (pairs,) numbers of the images; None if every pair has another image.
        counted: number of pairs; 0 if the batch is a filler.
        first: number of the first pair among those of all ranks.
        total: number of pairs of all ranks.
    """

    image_embeds: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    ids: Tensor | None
    counted: int
    first: int
    total: int

    @property
    def numbers(self) -> Tensor:
        """(pairs,) numbers of these pairs among those of all ranks."""
        count = len(self.input_ids)
        return (self.first + torch.arange(count, device=self.input_ids.device)).clamp(max=self.total - 1)


@dataclass
class Alignment:
    """Both directions of ITC, the features that they compare, (pairs, embed_dim), and their hidden states."""

    image_to_text: Contrast
    text_to_image: Contrast
    image_features: Tensor
    text_features: Tensor
    text_embeds: Tensor
    image_embeds_m: Tensor
    text_embeds_m: Tensor


class BlipContrastive(BlipMatcher):
    """A matcher that trains on ITC and ITM."""

    momentum_parts: ClassVar[tuple[str, ...]] = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
    # True if pairs with equal image ids share ITC's targets; their ids are then in a queue, too.
    shares_targets: ClassVar[bool] = False
    min_negative_weight: ClassVar[float] = 0.0

    visual_encoder_m: BlipVisionTransformer
    text_encoder_m: TextTransformer
    vision_proj_m: nn.Linear
    text_proj_m: nn.Linear
    image_queue: Tensor
    text_queue: Tensor
    idx_queue: Tensor
    queue_ptr: Tensor

    @dataclass
    class Config(BlipMatcher.Config):
        """Settings.

        Attributes:
            queue_size: features of earlier batches that ITC contrasts with.
            momentum: share of a momentum copy that remains in each step.
            alpha: weight of the momentum model's distribution in ITC's targets.
            alpha_ramp_epochs: epochs in which `alpha` grows from 0.
            negative_all_rank: draw hard negatives from the batches of all ranks.
        """

        queue_size: int = 57600
        momentum: float = 0.995
        alpha: float = 0.4
        alpha_ramp_epochs: float = 2.0
        negative_all_rank: bool = False

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.temp = nn.Parameter(torch.tensor(0.07))
        add_momentum_copies(self, self.momentum_parts)
        self.queues = FeatureQueues(self, config.embed_dim, config.queue_size, with_ids=self.shares_targets)

    def after_step(self) -> None:
        """Update the momentum copies, and write the features of the step to the queues.

        BLIP updates the copies at the start of the next forward pass, which is equivalent.
        """
        update_momentum_copies(self, self.momentum_parts, self.config.momentum)
        self.queues.flush()

    def after_skipped_step(self) -> None:
        """Forget the features of a step that was skipped."""
        self.queues.drop()

    def reset_queue_ptr(self) -> None:
        """Write to the beginning of the queues next."""
        self.queue_ptr.zero_()

    def contrast_and_match(
        self, samples: Mapping[str, Any]
    ) -> tuple[BlipOutput, Pairs, list[ImageKeyValues]]:
        """Return ITC and ITM of matching pairs, the encoded pairs, and the projected images.

        Raises:
            InputError: not an image or a text, or not one text for each image.
        """
        samples = checked_samples(samples, "image", "text_input")
        samples["image"] = self.check_image(samples["image"])
        pairs = self._read_pairs(samples)
        alpha = ramped_alpha(self.config.alpha, self.config.alpha_ramp_epochs, samples)
        alignment = self._align(samples["image"], pairs, alpha)
        image_kv = self.text_encoder.project_image(pairs.image_embeds)
        loss_itm, intermediate_output = self._match(samples, pairs, alignment, image_kv)
        loss_itc = itc_loss(alignment.image_to_text, alignment.text_to_image)
        i2t, t2i = alignment.image_to_text, alignment.text_to_image
        output = BlipOutput(
            loss=loss_itc + loss_itm,
            loss_itc=loss_itc,
            loss_itm=loss_itm,
            # Filled on the device: a copy from the host would wait for it.
            loss_weight=loss_itm.new_full((), len(pairs.input_ids)),
            report=self._report(samples, pairs, alpha),
            sims=BlipSimilarity(
                sim_i2t=i2t.similarities,
                sim_t2i=t2i.similarities,
                sim_i2t_m=i2t.momentum_similarities,
                sim_t2i_m=t2i.momentum_similarities,
                sim_i2t_targets=i2t.targets,
                sim_t2i_targets=t2i.targets,
            ),
            intermediate_output=intermediate_output,
        )
        return output, pairs, image_kv

    def _report(self, samples: Mapping[str, Any], pairs: Pairs, alpha: float) -> dict[str, Tensor]:
        """Return the temperature, alpha, and the share of the queue that holds features of this run."""
        temperature = self.temp.detach().clone()
        report = {"temperature": temperature, "alpha": temperature.new_full((), alpha)}
        if "epoch" in samples:
            batches = int(samples["epoch"]) * int(samples["num_iters_per_epoch"]) + int(samples["iters"]) + 1
            fill = min(1.0, batches * pairs.total / self.config.queue_size)
            report["queue_fill"] = temperature.new_full((), fill)
        return report

    def _read_pairs(self, samples: Mapping[str, Any]) -> Pairs:
        image_embeds = self.encode_image(samples["image"])
        input_ids, attention_mask = self.tokenize(samples["text_input"], padding=self.text_padding)
        check_one_each(input_ids, image_embeds, "texts")
        if (ids := samples.get("image_id")) is not None:
            ids = as_numbers(ids, input_ids.device)
            check_one_each(ids, image_embeds, "image ids")
        counted = 0 if samples.get(FILLER, False) else len(input_ids)
        counts = distributed.gather_counts(counted, input_ids.device)
        return Pairs(
            image_embeds,
            input_ids,
            attention_mask,
            ids=ids,
            counted=counted,
            first=sum(counts[: distributed.rank()]),
            total=max(1, sum(counts)),
        )

    def _align(self, image: Tensor, pairs: Pairs, alpha: float) -> Alignment:
        """Contrast the pairs; in training, their features wait to enter the queues."""
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        text_embeds = self.encode_text(pairs.input_ids, pairs.attention_mask)
        image_features = self.project_image_embeds(pairs.image_embeds)
        text_features = self.project_text_embeds(text_embeds)
        with torch.no_grad():
            image_embeds_m = self.visual_encoder_m(image)
            text_embeds_m = self.text_encoder_m(pairs.input_ids, pairs.attention_mask, mode="text")
            image_features_m = F.normalize(self.vision_proj_m(image_embeds_m[:, 0]), dim=-1)
            text_features_m = F.normalize(self.text_proj_m(text_embeds_m[:, 0]), dim=-1)
            images = distributed.gather_rows(image_features_m[: pairs.counted])
            texts = distributed.gather_rows(text_features_m[: pairs.counted])
            targets, all_ids = self._targets(pairs)
        if self.training:
            self.queues.push(images, texts, all_ids)
        return Alignment(
            contrast(image_features, image_features_m, texts, self.text_queue, targets, self.temp, alpha),
            contrast(text_features, text_features_m, images, self.image_queue, targets, self.temp, alpha),
            image_features,
            text_features,
            text_embeds,
            image_embeds_m,
            text_embeds_m,
        )

    def _targets(self, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
        """Return ITC's targets (pairs, total + queue_size), and the ids of all pairs if they are shared."""
        if not self.shares_targets:
            return F.one_hot(pairs.numbers, pairs.total + self.config.queue_size).float(), None
        assert pairs.ids is not None, "shared targets need image ids"
        all_ids = distributed.gather_rows(pairs.ids[: pairs.counted])
        return shared_targets(pairs.ids, torch.cat((all_ids, self.idx_queue[0]))), all_ids

    def _match(
        self,
        samples: Mapping[str, Any],
        pairs: Pairs,
        alignment: Alignment,
        image_kv: list[ImageKeyValues],
    ) -> tuple[Tensor, BlipIntermediateOutput]:
        """Match each pair, each text with a wrong image, and each image with a wrong text.

        An image reads its two texts side by side; the keys and values of wrong images are gathered, not
        computed again.
        """
        count = len(pairs.input_ids)
        pool = self._negative_pool(pairs)
        negative_texts, has_text = self._draw_negatives(samples, pairs, alignment, pool, "texts")
        negative_images, has_image = self._draw_negatives(samples, pairs, alignment, pool, "images")
        two_ids = torch.stack((pairs.input_ids, pool.input_ids[negative_texts]), dim=1).flatten(0, 1)
        two_masks = torch.stack((pairs.attention_mask, pool.attention_mask[negative_texts]), dim=1).flatten(
            0, 1
        )
        states = self.match_states(two_ids, two_masks, image_kv).unflatten(0, (count, 2))
        wrong_image_kv = self._negative_image_kv(pool, negative_images, image_kv)
        wrong_image_states = self.match_states(pairs.input_ids, pairs.attention_mask, wrong_image_kv)
        matching_states = states[:, 0]
        negative_states = torch.cat((wrong_image_states, states[:, 1]))
        logits = self.itm_head(torch.cat((matching_states[:, 0], negative_states[:, 0])))
        labels = torch.zeros(3 * count, dtype=torch.long, device=logits.device)
        labels[:count] = 1
        counted = torch.cat((torch.ones_like(has_image), has_image, has_text))
        loss = itm_loss(logits, labels, counted, self.share_of_total(counted.sum(), pairs))
        return loss, BlipIntermediateOutput(
            image_embeds=pairs.image_embeds,
            text_embeds=alignment.text_embeds,
            image_embeds_m=alignment.image_embeds_m,
            text_embeds_m=alignment.text_embeds_m,
            encoder_output=HiddenStates.of(matching_states),
            encoder_output_neg=HiddenStates.of(negative_states),
            itm_logits=logits,
            itm_labels=labels,
            negative_images=negative_images,
            negative_texts=negative_texts,
        )

    def share_of_total(self, terms: Tensor, pairs: Pairs) -> Tensor:
        """Return what to divide this rank's sum of `terms` losses by.

        The runner averages the losses of the ranks weighted by their pairs. For the average to be the mean
        over the terms of all ranks (whose number per pair differs), a rank must divide its sum not by its
        terms but by ``pairs of this rank * (terms of all ranks / pairs of all ranks)``::

            sum_r(pairs_r * sum_r / (pairs_r * terms / pairs)) / pairs  =  sum_r(sum_r) / terms
        """
        sums = torch.stack((terms.float(), torch.ones_like(terms).float()))
        sums = distributed.sum_over_ranks(sums * torch.tensor([1.0, pairs.counted], device=terms.device))
        if not pairs.counted:
            return torch.ones_like(sums[0])
        return (sums[0] / sums[1] * pairs.counted).clamp(min=1.0)

    @property
    def text_padding(self) -> Literal["longest", "max_length"]:
        """Padding of texts: ranks that exchange texts need the same length."""
        return "max_length" if self._exchanges_negatives else "longest"

    @property
    def _exchanges_negatives(self) -> bool:
        return self.config.negative_all_rank and distributed.world_size() > 1

    def _negative_pool(self, pairs: Pairs) -> Pairs:
        """Return the pairs that negatives are drawn from: those of this rank, or of all ranks."""
        if not self._exchanges_negatives:
            return pairs
        counted = slice(pairs.counted)
        return Pairs(
            distributed.gather_rows_with_gradient(pairs.image_embeds[counted]),
            distributed.gather_rows(pairs.input_ids[counted]),
            distributed.gather_rows(pairs.attention_mask[counted]),
            ids=None if pairs.ids is None else distributed.gather_rows(pairs.ids[counted]),
            counted=pairs.total,
            first=0,
            total=pairs.total,
        )

    def gather_pool(self, features: Tensor) -> Tensor:
        """Return the rows of `features` that negatives are drawn from, without gradient to other ranks."""
        return distributed.gather_rows(features) if self._exchanges_negatives else features.detach()

    def _negative_image_kv(
        self, pool: Pairs, images: Tensor, image_kv: list[ImageKeyValues]
    ) -> list[ImageKeyValues]:
        if not self._exchanges_negatives:
            return select_images(image_kv, images)
        return self.text_encoder.project_image(pool.image_embeds[images])

    @torch.no_grad()
    def _draw_negatives(
        self,
        samples: Mapping[str, Any],
        pairs: Pairs,
        alignment: Alignment,
        pool: Pairs,
        kind: Literal["texts", "images"],
    ) -> tuple[Tensor, Tensor]:
        """Return for each pair the number of its hard negative in `pool`, and whether there is one."""
        columns = pool.numbers if pool is pairs else torch.arange(pairs.total, device=pairs.input_ids.device)
        similarities = self.negative_similarities(alignment, columns, kind)
        if pairs.ids is None or pool.ids is None:
            forbidden = pairs.numbers[:, None] == columns
        else:
            forbidden = pairs.ids[:, None] == pool.ids
        # The noise depends on the pairs, not on the ranks, so that any number of ranks draws the same.
        noise = self._noise(samples, pairs, kind)[pairs.numbers][:, columns]
        return sample_negatives(similarities, forbidden, noise, self.min_negative_weight)

    def negative_similarities(self, alignment: Alignment, columns: Tensor, kind: str) -> Tensor:
        """Return (pairs, pool): similarities of each pair's image to the texts, or of its text to the images.

        Args:
            alignment: of the pairs.
            columns: (pool,) numbers of the pool's pairs among those of all ranks.
            kind: "texts" or "images".
        """
        direction = alignment.image_to_text if kind == "texts" else alignment.text_to_image
        return direction.similarities[:, columns]

    def _noise(self, samples: Mapping[str, Any], pairs: Pairs, kind: str) -> Tensor:
        if "epoch" in samples:
            seed = key_seed("negatives", kind, int(samples["epoch"]), int(samples["iters"]))
        else:
            seed = int(torch.randint(2**62, (1,)))
        generator = torch.Generator(device=pairs.input_ids.device).manual_seed(seed)
        return torch.rand(pairs.total, pairs.total, generator=generator, device=pairs.input_ids.device)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str, fresh: Sequence[str] = ()) -> None:
        """Load weights with or without momentum copies and queues, with `queue_ptr` or `ptr_queue`.

        Missing copies start equal to their originals, queues of another size with random features.
        """
        state_dict = momentum_from_online(fit_queues(state_dict, self.state_dict()), self.momentum_parts)
        super().load_weights(state_dict, source, fresh=(*QUEUES, *fresh))


def as_numbers(ids: Tensor | Sequence[int | str], device: torch.device) -> Tensor:
    """Return image ids as a long tensor (images,); a name always becomes the same number."""
    if isinstance(ids, Tensor):
        return ids.flatten().to(device)
    numbers = [
        zlib.crc32(name.encode("utf-8", "surrogatepass")) if isinstance(name, str) else int(name)
        for name in ids
    ]
    return torch.tensor(numbers, device=device)
