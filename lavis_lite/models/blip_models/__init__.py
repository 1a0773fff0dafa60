"""The BLIP family, one short file a model; importing this package registers them."""

from lavis_lite.models.blip_models import blip_caption

__all__ = ["blip_caption"]
