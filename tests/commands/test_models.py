"""The table of models says what the literature says."""

from __future__ import annotations

import pytest

from lavis_lite.commands.models import format_table, list_models


@pytest.fixture(scope="module")
def rows():
    return {(row.name, row.model_type): row for row in list_models()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model_type", "millions"),
    [
        ("blip_caption", "base_coco", 223.97),
        ("blip_caption", "large_coco", 446.29),
        ("blip_vqa", "vqav2", 361.48),
        ("blip_pretrain", "base", 252.4 + 223.5),
        ("blip_pretrain", "large", 474.7 + 445.7),
    ],
)
def test_published_models_have_the_published_number_of_parameters(rows, name, model_type, millions):
    assert rows[name, model_type].parameters / 1e6 == pytest.approx(millions, abs=0.1)


def test_every_model_is_counted(rows):
    assert len(rows) >= 24
    assert all(row.parameters for row in rows.values())


def test_weights_that_two_places_hold_are_listed_with_both(rows):
    first, second = rows["blip_image_text_matching", "base"].sources
    assert first.endswith("/BLIP/models/model_base_retrieval_coco.pth")
    assert second == "Salesforce/blip-itm-base-coco"
    assert f"or {second}" in format_table(list(rows.values()))
