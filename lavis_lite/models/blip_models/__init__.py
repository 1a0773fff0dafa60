"""The BLIP family, one short file a model; importing this package registers them."""

from lavis_lite.models.blip_models import (
    blip_caption,
    blip_classification,
    blip_feature_extractor,
    blip_image_text_matching,
    blip_nlvr,
    blip_pretrain,
    blip_retrieval,
    blip_vqa,
)

__all__ = [
    "blip_caption",
    "blip_classification",
    "blip_feature_extractor",
    "blip_image_text_matching",
    "blip_nlvr",
    "blip_pretrain",
    "blip_retrieval",
    "blip_vqa",
]
