"""Names: registered once, found again, missed helpfully."""

from __future__ import annotations

import pytest

from lavis_lite.common.registry import DuplicateNameError, Registry, UnknownNameError, registry


def test_what_is_registered_is_found():
    names = Registry("thing")

    @names.register("first")
    class First: ...

    assert names.get("first") is First
    assert names.names() == ["first"]
    assert names.name_of(First) == "first"


def test_an_unknown_name_names_the_nearest_and_lists_the_rest():
    with pytest.raises(UnknownNameError, match=r"'blip_captions'.*Did you mean blip_caption\b.*Known: "):
        registry.get_model_class("blip_captions")


def test_a_second_owner_of_a_name_is_refused_and_both_are_named():
    names = Registry("thing")
    names.register("first")(type("A", (), {}))
    with pytest.raises(DuplicateNameError, match=r"\.A and by .*\.B"):
        names.register("first")(type("B", (), {}))


@pytest.mark.parametrize(
    ("list_names", "expected"),
    [
        ("list_models", "blip_caption"),
        ("list_datasets", "coco_caption"),
        ("list_processors", "blip_image_eval"),
        ("list_tasks", "captioning"),
        ("list_runners", "runner_base"),
        ("list_lr_schedulers", "linear_warmup_cosine_lr"),
    ],
)
def test_every_kind_fills_itself_on_first_use(list_names, expected):
    assert expected in getattr(registry, list_names)()
