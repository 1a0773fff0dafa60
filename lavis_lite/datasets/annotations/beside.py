"""Captions in text files beside their images: ``a.txt`` or ``a.caption`` for ``a.jpg``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lavis_lite.datasets.annotations.checking import text_of
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, listed
from lavis_lite.datasets.annotations.image_names import ImageNames, folded
from lavis_lite.datasets.annotations.text import LINE_END, decode, read_bytes

logger = logging.getLogger(__name__)

# sd-scripts calls its files .caption, most others .txt.
CAPTION_SUFFIXES = (".txt", ".caption")


def captions_beside(
    images: Sequence[Path], root: Path, suffixes: Sequence[str] = CAPTION_SUFFIXES
) -> dict[Path, list[str]]:
    """Return the captions of each of `images`, one a line of the file beside it; none where there is no file.

    Text files beside which there is no image are named in the log.

    Args:
        images: paths below `root`.
        suffixes: what the files of captions end in.

    Raises:
        AnnotationError: files that are no UTF-8, or two files for one image; names them.
    """
    folders = ImageNames(root)
    errors = ErrorList(root, "file")
    captions: dict[Path, list[str]] = {}
    used: set[Path] = set()
    for image in images:
        listing = folders.listing(image.parent.relative_to(root).as_posix())
        names = [name for suffix in suffixes for name in listing.by_fold.get(folded(image.stem + suffix), [])]
        exact = [name for name in names if name.startswith(image.stem)] or names
        texts = [image.with_name(name) for name in exact]
        used.update(image.with_name(name) for name in names)
        captions[image] = []
        if len(texts) > 1:
            errors.add(
                repr(image.relative_to(root).as_posix()),
                f": has captions in {' and in '.join(text.name for text in texts)}; set caption_extension "
                "to that of the files that are meant.",
            )
        elif texts:
            try:
                captions[image] = read_lines(texts[0])
            except AnnotationError as error:
                place = repr(texts[0].relative_to(root).as_posix())
                errors.add(place, ": " + str(error).removeprefix(f"{texts[0]}: "))
    errors.raise_if_any()
    _name_the_unused(images, root, folders, used, suffixes)
    return captions


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of captions that are not blank, without white space around them.

    Raises:
        AnnotationError: not UTF-8, or a character that cannot be written; names line and byte.
    """
    lines = enumerate(LINE_END.split(decode(read_bytes(path), path)), start=1)
    return [text_of(line.strip(), f"{path}: line {number}") for number, line in lines if line.strip()]


def _name_the_unused(
    images: Sequence[Path], root: Path, folders: ImageNames, used: set[Path], suffixes: Sequence[str]
) -> None:
    unused = []
    for parent in dict.fromkeys(image.parent for image in images):
        names = folders.listing(parent.relative_to(root).as_posix()).names
        texts = [name for name in names if name.lower().endswith(tuple(suffixes)) and name[0] != "."]
        unused += [parent / name for name in texts if parent / name not in used]
    if unused:
        names = sorted(path.relative_to(root).as_posix() for path in unused)
        logger.warning("%s: no image beside %s.", root, listed(names, "file"))
