"""Image-text retrieval: find the texts of an image and the image of a text (paper section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import RankingSettings
from lavis_lite.models.blip_models.blip_outputs import BlipOutput
from lavis_lite.models.blip_models.contrastive import Alignment, BlipContrastive
from lavis_lite.models.blip_models.inputs import InputError
from lavis_lite.models.blip_models.ranking import rank_images_and_texts


@registry.register_model("blip_retrieval")
class BlipRetrieval(BlipContrastive):
    """A matcher trained on ITC and ITM, where the texts of one image share ITC's targets.

    Example:
        >>> import torch
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_retrieval", "tiny", is_eval=True)
        >>> model.embed_texts(["a red circle", "a star"]).shape
        torch.Size([2, 64])
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "coco": "blip_retrieval_coco",
        "flickr": "blip_retrieval_flickr",
        "tiny": "blip_retrieval_tiny",
    }
    shares_targets: ClassVar[bool] = True

    @dataclass
    class Config(BlipContrastive.Config):
        """Settings."""

        alpha_ramp_epochs: float = 1.0

    config: Config

    def forward(self, samples: Mapping[str, Any]) -> BlipOutput:
        """Return the losses of matching pairs.

        Args:
            samples: "image" (pairs, 3, image_size, image_size), "text_input" (pairs,) texts, "image_id"
                (pairs,) numbers or names. May have "epoch", "iters", "num_iters_per_epoch", for the ramp of
                alpha.

        Raises:
            InputError: not an image or a text, not one text for each image, or no image_id.
        """
        if "image_id" not in samples:
            raise InputError("blip_retrieval needs samples['image_id'], to know which texts share an image.")
        return self.contrast_and_match(samples)[0]

    def negative_similarities(self, alignment: Alignment, columns: Tensor, kind: str) -> Tensor:
        """Return (pairs, pool) similarities of online features on both sides, as in BLIP's retrieval."""
        features = (alignment.image_features, alignment.text_features)
        queries, others = features if kind == "texts" else features[::-1]
        return queries @ self.gather_pool(others).T / self.temp

    def compute_sim_matrix(self, data_loader: Any, task_cfg: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (images, texts) and (texts, images) of a whole split, re-ranked by ITM.

        Args:
            data_loader: yields {"image", "index"}, this rank's share of the images; its `dataset` has all
                texts as `text` and all images as `image`.
            task_cfg: any object with fields of `RankingSettings`; those it lacks have their defaults.
        """
        names = [field.name for field in fields(RankingSettings) if hasattr(task_cfg, field.name)]
        settings = parse(RankingSettings, {name: getattr(task_cfg, name) for name in names}, where="task_cfg")
        dataset = data_loader.dataset
        return rank_images_and_texts(self, data_loader, dataset.text, len(dataset.image), settings)
