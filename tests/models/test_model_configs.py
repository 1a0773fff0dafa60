"""The default yaml files of the models."""

from __future__ import annotations

import dataclasses

import pytest

from lavis_lite.common.config.layering import model_defaults
from lavis_lite.common.registry import registry

TYPES = [
    (name, kind) for name in registry.list_models() for kind in registry.get_model_class(name).default_configs
]


@pytest.mark.parametrize(("name", "model_type"), TYPES)
def test_a_yaml_states_only_what_differs_from_the_config(name, model_type):
    model_class = registry.get_model_class(name)
    defaults = {field.name: field.default for field in dataclasses.fields(model_class.Config)}
    stated = model_defaults(model_class, model_type)["model"]
    assert [key for key, value in stated.items() if defaults[key] == value] == []
