"""Models by name: ``load_model("blip_caption", "large_coco")``."""

from lavis_lite.models import blip_models
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.weights.zoo import load_model, load_model_and_preprocess, load_preprocess, model_zoo

__all__ = [
    "BaseModel",
    "blip_models",
    "load_model",
    "load_model_and_preprocess",
    "load_preprocess",
    "model_zoo",
]
