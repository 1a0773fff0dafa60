"""Open image files of unknown origin, and bring any image to upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, open_regular, printable

logger = logging.getLogger(__name__)

# The formats of photographs and web pictures; every further decoder adds attack surface. HEIF and JXL need
# their Pillow plugins.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF", "JXL",
)  # fmt: skip
# The only table of image suffixes: for folders, shards, annotations and reports.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    ".jpe", ".jif", ".jfif", ".mpo", ".apng", ".dib", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
)  # fmt: skip
# Image formats that are not read, to report files that are left out.
UNREADABLE_IMAGE_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".svg", ".svgz", ".eps", ".ai", ".psd", ".psb", ".xcf",
    ".tga", ".ico", ".icns", ".pcx", ".exr", ".hdr", ".dcm", ".fits", ".qoi", ".avifs",
    ".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".orf", ".rw2", ".raf", ".pef",
    ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl",
)  # fmt: skip
_PLUGIN_FORMATS = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL"}

# A JPEG of more pixels than the limit, up to this many times, is decoded at half its width and height, in a
# quarter of the memory. Decoding holds the coefficients of a progressive one, two bytes each. Photographs of
# 200 megapixels fit.
LARGEST_REDUCED_JPEG = 2.5
# A file may have this many bytes for each pixel of the limit: uncompressed 16-bit RGBA.
BYTES_PER_PIXEL = 8
MAX_PIXELS_VARIABLE = "LAVIS_LITE_MAX_PIXELS"

# Damaged metadata around good pixels is common in crawls, and not worth a warning.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin$")

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


def set_max_pixels(pixels: int) -> None:
    """Accept images of up to `pixels` pixels, in this process and in those that it starts.

    The limit protects from small files that decode to gigabytes; raise it for images that you trust. It
    is ``PIL.Image.MAX_IMAGE_PIXELS``, and can be set by the environment variable ``LAVIS_LITE_MAX_PIXELS``.

    Args:
        pixels: width times height, at least 1.
    """
    os.environ[MAX_PIXELS_VARIABLE] = str(pixels)
    Image.MAX_IMAGE_PIXELS = pixels


def open_image(source: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image completely and return it as upright RGB, its file closed.

    The format is detected from the bytes, not from the name. A JPEG of more pixels than Pillow's limit
    is decoded at half its width and height, up to `LARGEST_REDUCED_JPEG` times the limit.

    Args:
        source: a path, or an open binary file (which stays open).
        name: of the image in errors, if `source` is not a path ("shard 3, sample 00017").

    Raises:
        ImageError: missing, truncated, too large (Pillow's decompression-bomb limit), not a regular
            file, not an image, or not of one of `FORMATS`.
    """
    if isinstance(source, str | Path):
        with open_image_file(source) as file:
            return _decode(file, name or printable(source))
    seekable = source if source.seekable() else io.BytesIO(source.read())
    return _decode(seekable, name or printable(getattr(source, "name", None) or f"<{type(source).__name__}>"))


def open_image_file(path: str | Path) -> BinaryIO:
    """Open the file of an image for reading its bytes.

    Raises:
        ImageError: missing, not a regular file (a pipe, a device, a folder), or larger than any image
            within the limit of pixels can be.
    """
    try:
        file = open_regular(path)
    except FileError as error:
        # the message begins with the path as it is; errors show it printable
        raise ImageError(f"{printable(path)}{str(error).removeprefix(str(path))}") from None
    size, limit = os.fstat(file.fileno()).st_size, Image.MAX_IMAGE_PIXELS
    if limit is not None and size > limit * BYTES_PER_PIXEL:
        file.close()
        raise ImageError(
            f"{printable(path)}: holds {size} bytes, more than an image of {limit} pixels can need; "
            f"{_how_to_raise(size // BYTES_PER_PIXEL + 1)}"
        )
    return file


def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the files that can be opened, with the installed plugins."""
    formats = _formats()
    return frozenset(IMAGE_SUFFIXES) | {s for s, name in _PLUGIN_FORMATS.items() if name in formats}


def _decode(file: BinaryIO, name: str) -> Image.Image:
    image = None
    try:
        with _identify(file) as image:
            _fit_to_limit(image, name)
            image.load()
            return to_upright_rgb(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError as error:
        size = f" of {image.width} x {image.height} pixels" if image else ""
        raise ImageError(f"{name}: there is not enough memory to decode this image{size}") from error
    except Exception as error:  # on damaged bytes the decoders raise nearly anything
        raise ImageError(f"{name}: {_cause(error, file)}") from error


def _identify(file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header of an image as ``Image.open`` does, but without its check of the pixel limit.

    Raises:
        UnidentifiedImageError: not one of `FORMATS`.
    """
    file.seek(0)
    prefix = file.read(16)
    for name in _formats():
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept is None or accept(prefix)
            if accepted and not isinstance(accepted, str):  # a text names a missing feature of Pillow
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # a plugin raises these if the file is not of its format after all
    raise UnidentifiedImageError


def format_of(source: BinaryIO) -> str | None:
    """Return Pillow's name of an image's format ("JPEG"), by its first bytes; None if it is not an image."""
    try:
        with Image.open(source, formats=_formats()) as image:
            return image.format
    except MemoryError:
        raise
    except Exception:  # on damaged bytes the decoders raise nearly anything
        return None


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return `image` as RGB, rotated by its EXIF orientation; the input is not changed.

    Transparent pixels are blended with white; 16-bit, integer and float grays are scaled to 8 bits. Of
    an animation, the current frame is returned. An image that is upright RGB already is returned itself.

    Raises:
        TypeError: not a Pillow image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"expected a PIL image, found {type(image).__name__}; "
            "open files with lavis_lite.common.media.images.open_image"
        )
    image.load()  # some formats store orientation or transparency after the pixel data
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if rgb is not image:
        # or the next caller would rotate it again
        rgb.info = {key: value for key, value in rgb.info.items() if key not in _ORIENTATION_KEYS}
    return rgb


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError):
        return None  # damaged metadata, which Pillow ignores in a JPEG


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
    """Map the range of a deep gray image to 0..255, without stretching its contrast.

    Modes I and F have no fixed range: the smallest usual range with the brightest value is assumed.
    """
    raw = numpy.asarray(image)
    values = numpy.nan_to_num(raw.astype(numpy.float32))
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        brightest = float(values.max(initial=0))
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        white = next((limit for limit in usual if brightest <= limit), brightest)
    gray = numpy.rint(values.clip(0, white) * (255.0 / white)).astype(numpy.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[raw == transparent] = 255
    return Image.fromarray(gray)


def _fit_to_limit(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse an image of more pixels than the limit, except a JPEG that can be decoded smaller."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or width * height <= limit:
        return
    if image.format in ("JPEG", "MPO") and width * height <= limit * LARGEST_REDUCED_JPEG:
        image.draft(None, (max(1, width // 2), max(1, height // 2)))
        if image.width * image.height <= limit:
            _log_reduction(
                f"{name}: has {width} x {height} pixels and is read at half its width and height, as all "
                f"JPEGs above {limit} pixels are ({MAX_PIXELS_VARIABLE})."
            )
            return
    raise ImageError(
        f"{width} x {height} pixels are more than the limit of {limit} against decompression bombs; shrink "
        f"the image, or {_how_to_raise(width * height)}"
    )


def _how_to_raise(pixels: int) -> str:
    return (
        f"if you trust your images, raise the limit: --max-pixels {pixels}, the environment variable "
        f"{MAX_PIXELS_VARIABLE}={pixels}, or PIL.Image.MAX_IMAGE_PIXELS in Python"
    )


def _log_reduction(text: str) -> None:
    """Log `text`, once in a process: a data set of such photographs would fill the log."""
    if not _logged_reductions:
        _logged_reductions.append(text)
        logger.info("%s", text)


_logged_reductions: list[str] = []


def _cause(error: Exception, file: BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        if not file.read(1):
            return "the file is empty"
        readable = ", ".join(_formats())
        return f"not an image, or damaged at its start, or of no format that is read ({readable})"
    return f"damaged or unreadable image ({type(error).__name__}: {error})"


def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that Pillow can read; plugins may be registered at any time."""
    _load_decoders()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _load_decoders() -> None:
    Image.init()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


if (_limit := os.environ.get(MAX_PIXELS_VARIABLE)) is not None:
    if not _limit.isdecimal() or int(_limit) < 1:
        raise ConfigError(f"{MAX_PIXELS_VARIABLE}: expected a number of pixels above 0, found {_limit!r}.")
    Image.MAX_IMAGE_PIXELS = int(_limit)
