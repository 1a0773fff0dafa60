"""Learning to align and to match: ITC with a momentum model, ITM with hard negatives (paper section 3.2)."""

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
from lavis_lite.models.blip_models.blip_outputs import BlipSimilarity
from lavis_lite.models.blip_models.inputs import InputError, checked_samples
from lavis_lite.models.blip_models.losses import (
    Candidates,
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
from lavis_lite.models.layers.med import select_images
from lavis_lite.models.layers.momentum import (
    FeatureQueues,
    add_momentum_copies,
    update_momentum_copies,
)
from lavis_lite.models.weights.adapters.salesforce import QUEUES, fit_queues, momentum_from_online


@dataclass
class Pairs:
    """A batch of matching pairs on its way through the model.

    Attributes:
        ids: (pairs,) which image; None where each pair is its own.
        counted: 0 where the batch only fills a rank's empty share, else how many pairs.
        first: number of this rank's first pair among all ranks' pairs, `total` how many there are.
    """

    image_embeds: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    ids: Tensor | None
    counted: int
    first: int
    total: int

    @property
    def own(self) -> Tensor:
        """(pairs,) numbers of this rank's pairs among all."""
        count = len(self.input_ids)
        return (self.first + torch.arange(count, device=self.input_ids.device)).clamp(max=self.total - 1)


@dataclass
class Alignment:
    """What ITC found: its two directions, and the features they compare, (pairs, embed_dim) each."""

    image_to_text: Contrast
    text_to_image: Contrast
    image_features: Tensor
    text_features: Tensor
    text_embeds: Tensor
    image_embeds_m: Tensor
    text_embeds_m: Tensor

    @property
    def loss(self) -> Tensor:
        """The ITC loss."""
        return itc_loss(self.image_to_text, self.text_to_image)

    @property
    def similarity(self) -> BlipSimilarity:
        """All similarities, under their names of the output."""
        i2t, t2i = self.image_to_text, self.text_to_image
        return BlipSimilarity(
            sim_i2t=i2t.similarities,
            sim_t2i=t2i.similarities,
            sim_i2t_m=i2t.momentum_similarities,
            sim_t2i_m=t2i.momentum_similarities,
            sim_i2t_targets=i2t.targets,
            sim_t2i_targets=t2i.targets,
        )


@dataclass
class Matching:
    """What ITM found; see `BlipIntermediateOutput`."""

    loss: Tensor
    states: Tensor
    negative_states: Tensor
    logits: Tensor
    labels: Tensor
    negative_images: Tensor
    negative_texts: Tensor

    def outputs(self) -> dict[str, Tensor]:
        """Return everything but the loss, under its names of `BlipIntermediateOutput`."""
        return {
            "encoder_output": self.states,
            "encoder_output_neg": self.negative_states,
            "itm_logits": self.logits,
            "itm_labels": self.labels,
            "negative_images": self.negative_images,
            "negative_texts": self.negative_texts,
        }


class BlipContrastive(BlipMatcher):
    """What pretraining and retrieval share."""

    momentum_parts: ClassVar[tuple[str, ...]] = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
    # Equal image ids share the targets of ITC (retrieval), and are kept in a queue for it.
    shares_targets: ClassVar[bool] = False
    smallest_negative_weight: ClassVar[float] = 0.0

    @dataclass
    class Config(BlipMatcher.Config):
        """Settings.

        Attributes:
            queue_size: features of earlier batches that ITC contrasts with.
            momentum: how slowly the momentum copies follow.
            alpha: share of the momentum model's opinion in the targets of ITC.
            alpha_ramp_epochs: epochs in which `alpha` grows from 0.
            negative_all_rank: take hard negatives from the batches of all ranks.
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
        """Let the momentum copies follow, and put the step's features into the queues.

        BLIP moves the copies at the start of the next forward pass: the same weights meet the same
        batches.
        """
        update_momentum_copies(self, self.momentum_parts, self.config.momentum)
        self.queues.flush()

    def after_skipped_step(self) -> None:
        """Keep features of a step that was left out away from the queues."""
        self.queues.drop()

    def reset_queue_ptr(self) -> None:
        """Fill the queues from their beginning again."""
        self.queue_ptr.zero_()

    def checked_pairs(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return `samples` with images that both image encoders take.

        Raises:
            InputError: something that is no image or text.
        """
        checked = checked_samples(samples, "image", "text_input")
        checked["image"] = self.check_image(checked["image"])
        return checked

    def read_pairs(self, samples: Mapping[str, Any]) -> Pairs:
        """Return the batch encoded and tokenized."""
        image_embeds = self.encode_image(samples["image"])
        input_ids, attention_mask = self.tokenize(samples["text_input"], padding=self.text_padding)
        if len(input_ids) != len(image_embeds):
            raise InputError(
                f"{len(input_ids)} texts for {len(image_embeds)} images; give one text an image."
            )
        if (ids := samples.get("image_id")) is not None:
            ids = as_numbers(ids, input_ids.device)
            if len(ids) != len(image_embeds):
                raise InputError(f"{len(ids)} image ids for {len(image_embeds)} images; give one an image.")
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

    def align(self, samples: Mapping[str, Any], pairs: Pairs) -> Alignment:
        """Return what ITC finds; in training, the features wait to enter the queues."""
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        text_embeds = self.encode_text(pairs.input_ids, pairs.attention_mask)
        image_features = self.project_image_embeds(pairs.image_embeds)
        text_features = self.project_text_embeds(text_embeds)
        with torch.no_grad():
            image_embeds_m = self.visual_encoder_m(samples["image"])
            text_embeds_m = self.text_encoder_m(pairs.input_ids, pairs.attention_mask, mode="text")
            image_features_m = F.normalize(self.vision_proj_m(image_embeds_m[:, 0]), dim=-1)
            text_features_m = F.normalize(self.text_proj_m(text_embeds_m[:, 0]), dim=-1)
            images = Candidates(distributed.gather_rows(image_features_m[: pairs.counted]), self.image_queue)
            texts = Candidates(distributed.gather_rows(text_features_m[: pairs.counted]), self.text_queue)
            targets, all_ids = self._targets(pairs)
        alpha = ramped_alpha(self.config.alpha, self.config.alpha_ramp_epochs, samples)
        if self.training:
            self.queues.push(images.batch, texts.batch, all_ids)
        return Alignment(
            contrast(image_features, image_features_m, texts, targets, self.temp, alpha),
            contrast(text_features, text_features_m, images, targets, self.temp, alpha),
            image_features,
            text_features,
            text_embeds,
            image_embeds_m,
            text_embeds_m,
        )

    def _targets(self, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
        """Return ITC's hard targets (pairs, all pairs + queue_size), and all pairs' ids where they matter."""
        if not self.shares_targets:
            return F.one_hot(pairs.own, pairs.total + self.config.queue_size).float(), None
        all_ids = distributed.gather_rows(pairs.ids[: pairs.counted])
        return shared_targets(pairs.ids, torch.cat((all_ids, self.idx_queue[0]))), all_ids

    def match(
        self,
        samples: Mapping[str, Any],
        pairs: Pairs,
        alignment: Alignment,
        image_kv: list[ImageKeyValues],
    ) -> Matching:
        """Return what ITM finds of each pair, each text with a wrong image, and each image with a wrong text.

        An image's two texts are read side by side on its own keys and values; wrong images' are
        gathered, not computed again.
        """
        count = len(pairs.input_ids)
        pool = self._negative_pool(pairs)
        negative_texts, has_text = self._draw(samples, pairs, alignment, pool, "texts")
        negative_images, has_image = self._draw(samples, pairs, alignment, pool, "images")
        own_and_wrong = (
            torch.stack((ids, pool_ids[negative_texts]), dim=1).flatten(0, 1)
            for ids, pool_ids in (
                (pairs.input_ids, pool.input_ids),
                (pairs.attention_mask, pool.attention_mask),
            )
        )
        states = self.match_states(*own_and_wrong, image_kv).unflatten(0, (count, 2))
        wrong_image_kv = self._negative_image_kv(pool, negative_images, image_kv)
        wrong_image = self.match_states(pairs.input_ids, pairs.attention_mask, wrong_image_kv)
        own, negative_states = states[:, 0], torch.cat((wrong_image, states[:, 1]))
        logits = self.itm_head(torch.cat((own[:, 0], negative_states[:, 0])))
        labels = torch.zeros(3 * count, dtype=torch.long, device=logits.device)
        labels[:count] = 1
        counted = torch.cat((torch.ones_like(has_image), has_image, has_text))
        loss = itm_loss(logits, labels, counted, self.share_of_total(counted.sum(), pairs))
        return Matching(loss, own, negative_states, logits, labels, negative_images, negative_texts)

    def share_of_total(self, terms: Tensor, pairs: Pairs) -> Tensor:
        """Return what to divide a sum over `terms` by, for its ranks' mean to be the mean over all terms.

        A rank's loss counts by its number of pairs; this is that number times all ranks' terms a pair.
        """
        sums = torch.stack((terms.float(), torch.ones_like(terms).float()))
        sums = distributed.sum_over_ranks(sums * torch.tensor([1.0, pairs.counted], device=terms.device))
        if not pairs.counted:
            return torch.ones_like(sums[0])
        return (sums[0] / sums[1] * pairs.counted).clamp(min=1.0)

    @property
    def text_padding(self) -> Literal["longest", "max_length"]:
        """How far texts are padded: those of other ranks must have the same length to be exchanged."""
        return "max_length" if self._exchanges_negatives else "longest"

    @property
    def _exchanges_negatives(self) -> bool:
        return self.config.negative_all_rank and distributed.world_size() > 1

    def _negative_pool(self, pairs: Pairs) -> Pairs:
        """Return the pairs that wrong images and texts may come from: this rank's, or all ranks'."""
        if not self._exchanges_negatives:
            return pairs
        kept = slice(pairs.counted)
        return Pairs(
            distributed.gather_rows_with_gradient(pairs.image_embeds[kept]),
            distributed.gather_rows(pairs.input_ids[kept]),
            distributed.gather_rows(pairs.attention_mask[kept]),
            ids=None if pairs.ids is None else distributed.gather_rows(pairs.ids[kept]),
            counted=pairs.total,
            first=0,
            total=pairs.total,
        )

    def gather_pool(self, features: Tensor) -> Tensor:
        """Return the rows of `features` that negatives may come from; no gradient reaches other ranks."""
        return distributed.gather_rows(features) if self._exchanges_negatives else features.detach()

    def _negative_image_kv(
        self, pool: Pairs, images: Tensor, image_kv: list[ImageKeyValues]
    ) -> list[ImageKeyValues]:
        if not self._exchanges_negatives:
            return select_images(image_kv, images)
        return self.text_encoder.project_image(pool.image_embeds[images])

    @torch.no_grad()
    def _draw(
        self, samples: Mapping[str, Any], pairs: Pairs, alignment: Alignment, pool: Pairs, what: str
    ) -> tuple[Tensor, Tensor]:
        """Return for each pair the number of its hard negative in `pool`, and whether there is one."""
        columns = pool.own if pool is pairs else torch.arange(pairs.total, device=pairs.input_ids.device)
        similarities = self.negative_similarities(alignment, columns, what)
        own, others = (pairs.own, columns) if pairs.ids is None else (pairs.ids, pool.ids)
        forbidden = own[:, None] == others
        # The noise belongs to the pairs, not to the ranks, so that any number of ranks draws alike.
        noise = self._noise(samples, pairs, what)[pairs.own][:, columns]
        return sample_negatives(similarities, forbidden, noise, self.smallest_negative_weight)

    def negative_similarities(self, alignment: Alignment, columns: Tensor, what: str) -> Tensor:
        """Return (pairs, pool): how much each pair's image resembles the texts, or its text the images.

        Args:
            columns: (pool,) numbers of the pool's pairs among all ranks' pairs.
            what: "texts" or "images".
        """
        direction = alignment.image_to_text if what == "texts" else alignment.text_to_image
        return direction.similarities[:, columns]

    def _noise(self, samples: Mapping[str, Any], pairs: Pairs, what: str) -> Tensor:
        if "epoch" in samples:
            seed = key_seed("negatives", what, int(samples["epoch"]), int(samples["iters"]))
        else:
            seed = int(torch.randint(2**62, (1,)))
        generator = torch.Generator(device=pairs.input_ids.device).manual_seed(seed)
        return torch.rand(pairs.total, pairs.total, generator=generator, device=pairs.input_ids.device)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Take weights with or without momentum copies and queues, with `queue_ptr` or `ptr_queue`.

        Copies that are not there start equal to their originals, and queues of another size empty.

        Raises:
            CheckpointError: a key that the model needs is missing or mis-shaped; all are named.
        """
        state_dict = momentum_from_online(fit_queues(state_dict, self.state_dict()), self.momentum_parts)
        super().load_weights(state_dict, source, fresh=QUEUES)


def as_numbers(ids: Tensor | Sequence[int | str], device: torch.device) -> Tensor:
    """Return image ids as a long tensor (images,); names become numbers that depend on the name alone."""
    if isinstance(ids, Tensor):
        return ids.flatten().to(device)
    numbers = [
        zlib.crc32(name.encode("utf-8", "surrogatepass")) if isinstance(name, str) else int(name)
        for name in ids
    ]
    return torch.tensor(numbers, device=device)
