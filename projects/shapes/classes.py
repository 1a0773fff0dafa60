"""Name the kinds of things: the labels of a classification, and what questions and statements speak of."""

from __future__ import annotations

from typing import Literal

from .scene import COLOURS, SHAPES, Scene, SceneObject

Label = Literal["kind", "colour", "shape"]
LABELS: tuple[Label, ...] = ("kind", "colour", "shape")


def class_names(label: Label = "kind") -> list[str]:
    """Return the names of all classes, in the order of their numbers.

    Args:
        label: what is told apart: shape and colour together, or one of them.

    >>> len(class_names("kind")), class_names("kind")[0], class_names("shape")[:2]
    (48, 'red circle', ['circle', 'square'])
    """
    if label == "colour":
        return list(COLOURS)
    if label == "shape":
        return list(SHAPES)
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def class_of(scene: Scene, label: Label = "kind") -> str:
    """Return the class of a scene: that of its largest object."""
    main = scene.main
    return {"kind": kind_of(main), "colour": main.colour, "shape": main.shape}[label]


def kind_of(item: SceneObject) -> str:
    """Return colour and shape of an object, "red circle"."""
    return f"{item.colour} {item.shape}"


def with_article(name: str) -> str:
    """Return `name` after "a" or "an".

    >>> with_article("red circle"), with_article("orange star")
    ('a red circle', 'an orange star')
    """
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def kinds_almost(colour: str, shape: str) -> list[tuple[str, str]]:
    """Return every (colour, shape) that differs from this one in either, but not in both."""
    other_colours = [(other, shape) for other in COLOURS if other != colour]
    return other_colours + [(colour, other) for other in SHAPES if other != shape]
