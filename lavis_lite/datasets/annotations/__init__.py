"""Annotation files: read in every form that people have, checked before anything is trained on them."""

from lavis_lite.datasets.annotations.checking import (
    check_caption_records,
    check_each,
    group_by_image,
    image_of,
    text_of,
)
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records, listed
from lavis_lite.datasets.annotations.keys import CAPTION_KEYS, IMAGE_KEYS, SPLIT_KEY, value_of
from lavis_lite.datasets.annotations.reading import read_records

__all__ = [
    "CAPTION_KEYS",
    "IMAGE_KEYS",
    "SPLIT_KEY",
    "AnnotationError",
    "ErrorList",
    "Records",
    "check_caption_records",
    "check_each",
    "group_by_image",
    "image_of",
    "listed",
    "read_records",
    "text_of",
    "value_of",
]
