"""Captions in text files beside their images: ``a.txt`` or ``a.caption`` for ``a.jpg``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lavis_lite.datasets.annotations.checking import text_of
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, listed
from lavis_lite.datasets.annotations.image_names import ImageFolder, folded
from lavis_lite.datasets.annotations.text import LINE_END, decode, read_bytes

logger = logging.getLogger(__name__)

# sd-scripts calls its files .caption, most others .txt.
CAPTION_SUFFIXES = (".txt", ".caption")


def captions_beside(
    images: Sequence[Path], root: Path, suffixes: Sequence[str] = CAPTION_SUFFIXES
) -> dict[Path, list[str]]:
    """Return the captions of each image, one for each line of the file beside it; none without a file.

    Text files without an image are logged.

    Args:
        images: paths below `root`.
        suffixes: suffixes of the caption files.

    Raises:
        AnnotationError: files that are not UTF-8, or two files for one image.
    """
    folder = ImageFolder(root)
    errors = ErrorList(root, "file")
    captions: dict[Path, list[str]] = {}
    used: set[Path] = set()
    for image in images:
        by_folded = folder.folder(image.parent.relative_to(root).as_posix()).by_folded
        names = [name for suffix in suffixes for name in by_folded.get(folded(image.stem + suffix), [])]
        used.update(image.with_name(name) for name in names)
        names = [name for name in names if name.startswith(image.stem)] or names
        captions[image] = []
        if len(names) > 1:
            errors.add(
                repr(image.relative_to(root).as_posix()),
                f": has captions in {' and in '.join(names)}; set caption_extension to the suffix to use.",
            )
        elif names:
            path = image.with_name(names[0])
            try:
                captions[image] = read_lines(path)
            except AnnotationError as error:
                label = repr(path.relative_to(root).as_posix())
                errors.add(label, ": " + str(error).removeprefix(f"{path}: "))
    errors.raise_if_any()
    unused = [
        (parent / name).relative_to(root).as_posix()
        for parent in {image.parent for image in images}
        for name in folder.folder(parent.relative_to(root).as_posix()).names
        if name.lower().endswith(tuple(suffixes)) and name[0] != "." and parent / name not in used
    ]
    if unused:
        logger.warning("%s: no image beside %s.", root, listed(sorted(unused), "file"))
    return captions


def read_lines(path: Path) -> list[str]:
    """Return the non-blank lines of a caption file, stripped.

    Raises:
        AnnotationError: not UTF-8, or a character that cannot be written; names line and byte.
    """
    lines = enumerate(LINE_END.split(decode(read_bytes(path), path)), start=1)
    return [text_of(line.strip(), f"{path}: line {number}") for number, line in lines if line.strip()]
