"""Open image files of unknown origin, and bring any image to upright 8-bit RGB."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy
from PIL import ExifTags, Image

# What people keep photographs and web pictures in. Every further decoder is one more way in for a bad file.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
# The one table of what counts as an image by its name: in folders, shards, annotations and reports.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jpe", ".jfif", ".mpo", ".apng", ".dib", ".avif", ".jp2", ".j2k", ".jpx",
)  # fmt: skip
# Pictures that are not read here, so that they can be named where they are left out.
UNREADABLE_IMAGE_SUFFIXES = (
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
)  # fmt: skip

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


class ImageError(ValueError):
    """An image that cannot be used; the text names it and the cause."""


def open_image(source: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image completely and return it as upright RGB, its file closed.

    Args:
        source: a path, or an open binary file (which stays open).
        name: how errors call the image, where `source` is not a path ("shard 3, sample 00017").

    Raises:
        ImageError: missing, truncated, too large (Pillow's decompression-bomb limit), not an
            image, or not of one of `FORMATS`.
    """
    name = name or _name_of(source)
    try:
        with Image.open(source, formats=_formats()) as image:
            _check_size(image)
            image.load()
            return to_upright_rgb(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes the decoders raise nearly anything
        raise ImageError(f"{name}: {_cause(error, source)}") from error


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return `image` as RGB, turned as its EXIF orientation asks; the given image is not changed.

    Transparency is laid on white, 16-bit, integer and float greys are scaled to 8 bits. Of an
    animation comes the frame at which the image stands, which is the first unless it was moved.
    An image that is upright RGB already is returned itself.

    Raises:
        TypeError: not a Pillow image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"expected a PIL image, found {type(image).__name__}; "
            "open files with lavis_lite.common.images.open_image"
        )
    image.load()  # some formats learn their orientation or transparency only from the pixel data's end
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if rgb is not image:
        # or the next caller would turn it once more
        rgb.info = {key: value for key, value in rgb.info.items() if key not in _ORIENTATION_KEYS}
    return rgb


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError):
        return None  # damaged metadata around good pixels, which Pillow itself forgives in a JPEG


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled_to_8_bits(image).convert("RGB")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(visible, mask=visible.getchannel("A"))
        return on_white
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Map the range of a deep grey image to 0..255, without stretching its contrast.

    Modes I and F do not tell their range: the smallest usual one that holds the brightest value
    is taken.
    """
    raw = numpy.asarray(image)
    values = numpy.nan_to_num(raw.astype(numpy.float32))
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        brightest = float(values.max(initial=0))
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        white = next((limit for limit in usual if brightest <= limit), brightest)
    grey = numpy.rint(values.clip(0, white) * (255.0 / white)).astype(numpy.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[raw == transparent] = 255
    return Image.fromarray(grey)


def _check_size(image: Image.Image) -> None:
    """Refuse what Pillow only warns about between one and two times its limit."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {limit} against decompression bombs; "
            "shrink the image, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust your images"
        )


def _cause(error: Exception, source: str | Path | BinaryIO) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"refused as a decompression bomb: {error}"
    if isinstance(error, Image.UnidentifiedImageError):
        if isinstance(source, str | Path) and Path(source).stat().st_size == 0:
            return "the file is empty"
        return f"not an image, or damaged at its start, or of no format that is read ({', '.join(FORMATS)})"
    return f"damaged or unreadable image ({type(error).__name__}: {error})"


def _name_of(source: str | Path | BinaryIO) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "name", None) or f"<{type(source).__name__}>")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
