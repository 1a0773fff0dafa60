"""lavis_lite: BLIP models, data sets, tasks and training, picked by name.

The public names below are imported when first used, so that ``import lavis_lite`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_lite.common.registry import registry as registry
    from lavis_lite.datasets.builders import dataset_zoo as dataset_zoo
    from lavis_lite.datasets.builders import load_dataset as load_dataset
    from lavis_lite.models import load_model as load_model
    from lavis_lite.models import load_model_and_preprocess as load_model_and_preprocess
    from lavis_lite.models import load_preprocess as load_preprocess
    from lavis_lite.models import model_zoo as model_zoo

__version__ = "0.1.0"

_HOME_OF = {
    "registry": "lavis_lite.common.registry",
    "load_model": "lavis_lite.models",
    "load_model_and_preprocess": "lavis_lite.models",
    "load_preprocess": "lavis_lite.models",
    "model_zoo": "lavis_lite.models",
    "load_dataset": "lavis_lite.datasets.builders",
    "dataset_zoo": "lavis_lite.datasets.builders",
}

__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lavis_lite' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
