"""Processors are found by name and built from every kind of mapping."""

import pytest
from omegaconf import OmegaConf

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import UnknownNameError, registry
from lavis_lite.processors import (
    BlipCaptionProcessor,
    BlipImageEvalProcessor,
    BlipImageTrainProcessor,
    BlipQuestionProcessor,
    load_processor,
)

CLASSES = {
    "blip_caption": BlipCaptionProcessor,
    "blip_question": BlipQuestionProcessor,
    "blip_image_train": BlipImageTrainProcessor,
    "blip_image_eval": BlipImageEvalProcessor,
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_processor_is_registered_and_builds_without_settings(name):
    assert name in registry.list_processors()
    assert type(load_processor(name)) is CLASSES[name]
    assert type(load_processor(name, {})) is CLASSES[name]


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'blip_image_evla'\. Did you mean blip_image_eval"):
        load_processor("blip_image_evla")


@pytest.mark.parametrize("mean", [[0.1, 0.2, 0.3], (0.1, 0.2, 0.3)], ids=["list", "tuple"])
def test_an_omegaconf_config_is_taken_with_its_interpolations(mean):
    whole = OmegaConf.create({"size": 64, "processor": {"image_size": "${size}", "mean": mean}})
    config = load_processor("blip_image_eval", whole.processor).config
    assert (config.image_size, config.mean) == (64, (0.1, 0.2, 0.3))


def test_omegaconf_values_within_a_plain_mapping_are_taken():
    whole = OmegaConf.create({"mean": [0.1, 0.2, 0.3], "jitter": {"hue": 0.1}})
    settings = {"mean": whole.mean, "color_jitter": whole.jitter}
    config = load_processor("blip_image_train", settings).config
    assert (config.mean, config.jitter().hue) == ((0.1, 0.2, 0.3), 0.1)


def test_an_omegaconf_config_is_checked_as_strictly():
    with pytest.raises(ConfigError, match=r"imagesize is not a key of .*did you mean image_size"):
        load_processor("blip_image_eval", OmegaConf.create({"imagesize": 64}))


def test_the_name_that_data_set_files_carry_is_taken_and_checked():
    section = OmegaConf.create({"name": "blip_caption", "max_words": 4})
    assert load_processor(section.name, section).config.max_words == 4
    with pytest.raises(ConfigError, match=r"name: is 'blip_caption', which is another processor"):
        load_processor("blip_question", section)


def test_a_config_that_is_not_a_mapping_is_refused():
    with pytest.raises(ConfigError, match="expected a mapping of settings, found"):
        load_processor("blip_caption", ["max_words"])
