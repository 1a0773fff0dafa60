"""Every kind of image file comes out as upright 8-bit RGB, or as an error that names it."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy
import pytest
from PIL import ExifTags, Image

from lavis_lite.common.media.images import ImageError, open_image, set_max_pixels, to_upright_rgb


def corners() -> Image.Image:
    """Four different corners, so that every turn and mirror image shows."""
    image = Image.new("RGB", (32, 16), "white")
    image.paste((255, 0, 0), (0, 0, 16, 8))
    image.paste((0, 255, 0), (16, 0, 32, 8))
    image.paste((0, 0, 255), (0, 8, 16, 16))
    return image


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


# What a camera does to an upright picture before it writes the tag: the tag's own definition
# (which edge of the stored picture is the top, which the left side).
STORED_AS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: numpy.rot90(pixels, 1),
    7: lambda pixels: numpy.rot90(pixels, 2).transpose(1, 0, 2),
    8: lambda pixels: numpy.rot90(pixels, -1),
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_every_exif_orientation_comes_out_upright(tmp_path, orientation, suffix):
    stored = Image.fromarray(numpy.ascontiguousarray(STORED_AS[orientation](numpy.asarray(corners()))))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(stored, tmp_path / f"picture.{suffix}", exif=exif, **options)
    opened = open_image(path)
    assert numpy.array_equal(numpy.asarray(opened), numpy.asarray(corners()))
    assert to_upright_rgb(opened) is opened  # not turned a second time


def test_a_rotated_jpeg_is_turned_and_its_original_left_alone(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = saved(corners().transpose(Image.Transpose.ROTATE_90), tmp_path / "phone.jpg", exif=exif)
    with Image.open(path) as image:
        upright = to_upright_rgb(image)
        assert image.size == (16, 32)
    assert upright.size == (32, 16)
    assert upright.getpixel((4, 3))[0] > 200  # red still at the top left


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_does_not_spoil_a_good_picture(tmp_path, suffix):
    path = saved(Image.new("RGB", (8, 8), "red"), tmp_path / f"odd.{suffix}", exif=b"Exif\0\0garbage")
    assert open_image(path).getpixel((4, 4))[0] > 245


def test_an_upright_rgb_image_is_returned_itself():
    image = corners()
    assert to_upright_rgb(image) is image


def test_cmyk_becomes_the_colours_it_stands_for(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "print.tiff")
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


def test_a_cmyk_jpeg_is_read(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "print.jpg", quality=95)
    red, green, blue = open_image(path).getpixel((4, 4))
    assert red > 245 and green < 10 and blue < 10


def test_a_palette_without_transparency_shows_its_colours(tmp_path):
    path = saved(corners().quantize(4), tmp_path / "palette.png")
    assert numpy.array_equal(numpy.asarray(open_image(path)), numpy.asarray(corners()))


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["one index", "alpha table"])
def test_transparent_palette_entries_lie_on_white(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    opened = open_image(saved(image, tmp_path / "palette.png", transparency=transparency))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (40, 50, 60)


def test_a_transparent_gif_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    opened = open_image(saved(image, tmp_path / "palette.gif", transparency=0))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (40, 50, 60)


@pytest.mark.parametrize(
    ("mode", "clear", "half", "solid"),
    [
        ("RGBA", (0, 0, 0, 0), (0, 0, 0, 128), (1, 2, 3, 255)),
        ("LA", (0, 0), (0, 128), (7, 255)),
    ],
)
def test_transparency_lies_on_white(tmp_path, mode, clear, half, solid):
    image = Image.new(mode, (3, 1))
    image.putdata([clear, half, solid])
    opened = open_image(saved(image, tmp_path / "alpha.png"))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (127, 127, 127)
    assert opened.getpixel((2, 0)) == (solid[:-1] if mode == "RGBA" else (7, 7, 7))


@pytest.mark.parametrize(("mode", "colour", "key"), [("RGB", (9, 8, 7), (9, 8, 7)), ("L", 9, 9), ("1", 0, 0)])
def test_a_transparent_colour_lies_on_white(tmp_path, mode, colour, key):
    path = saved(Image.new(mode, (2, 2), colour), tmp_path / "keyed.png", transparency=key)
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_the_rarer_transparent_modes_lie_on_white(mode):
    clear = {"La": Image.new("LA", (2, 2), (0, 0)), "RGBa": Image.new("RGBA", (2, 2), (0, 0, 0, 0))}
    image = clear[mode].convert(mode) if mode in clear else Image.new("PA", (2, 2), (0, 0))
    assert to_upright_rgb(image).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_to_8_not_clipped(tmp_path, suffix):
    values = numpy.array([[0, 257, 256 * 100, 32768, 65535]], dtype=numpy.uint16)
    opened = open_image(saved(Image.fromarray(values), tmp_path / f"deep.{suffix}"))
    assert opened.mode == "RGB"
    assert numpy.asarray(opened)[0, :, 0].tolist() == [0, 1, 100, 128, 255]


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    values = numpy.full((2, 2), 200, dtype=numpy.uint16)
    assert open_image(saved(Image.fromarray(values), tmp_path / "night.png")).getpixel((0, 0)) == (1, 1, 1)


def test_big_endian_16_bits_are_scaled_alike():
    values = numpy.array([[0, 257, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert numpy.asarray(to_upright_rgb(image))[0, :, 1].tolist() == [0, 1, 255]


def test_a_transparent_16_bit_grey_lies_on_white(tmp_path):
    values = numpy.array([[4000, 32768]], dtype=numpy.uint16)
    opened = open_image(saved(Image.fromarray(values), tmp_path / "deep.png", transparency=4000))
    assert numpy.asarray(opened)[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (numpy.array([[0, 100, 255]], dtype=numpy.int32), [0, 100, 255]),
        (numpy.array([[-5, 32768, 65535]], dtype=numpy.int32), [0, 128, 255]),
        (numpy.array([[0.0, 0.5, 1.0]], dtype=numpy.float32), [0, 128, 255]),
        (numpy.array([[0.0, 100.4, 255.0]], dtype=numpy.float32), [0, 100, 255]),
        (numpy.array([[numpy.nan, 0.5, 1.0]], dtype=numpy.float32), [0, 128, 255]),
    ],
    ids=["I in 8 bits", "I in 16 bits", "F to 1", "F to 255", "F with NaN"],
)
def test_integer_and_float_greys_keep_their_usual_range(values, expected):
    assert numpy.asarray(to_upright_rgb(Image.fromarray(values)))[0, :, 2].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode):
    image = to_upright_rgb(Image.new("RGB", (4, 4), "white").convert(mode))
    assert (image.mode, image.getpixel((2, 2))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_comes_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(frames[0], tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


def test_the_multi_picture_jpegs_of_phones_are_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((4, 4))[0] > 245


def test_an_open_file_is_read_and_stays_open():
    buffer = io.BytesIO()
    corners().save(buffer, "PNG")
    assert open_image(buffer).size == (32, 16)
    assert not buffer.closed


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg: there is no such file"):
        open_image(tmp_path / "nowhere.jpg")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match=f"{tmp_path}: is a folder"):
        open_image(tmp_path)


def test_an_empty_file_is_called_empty(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty"):
        open_image(path)


def test_a_web_page_saved_as_jpeg_is_no_image(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<!doctype html><title>404</title>")
    with pytest.raises(ImageError, match=r"page\.jpg: not an image"):
        open_image(path)


def noise() -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff", "ppm"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, suffix, share):
    path = saved(noise(), tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}: "):
        open_image(path)


def test_damaged_bytes_raise_nothing_but_image_errors(tmp_path):
    generator = numpy.random.default_rng(7)
    path = tmp_path / "damaged"
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm"):
            buffer = io.BytesIO()
            noise().save(buffer, suffix)
            for _ in range(40):
                content = numpy.frombuffer(buffer.getvalue(), dtype=numpy.uint8).copy()
                places = generator.integers(0, min(len(content), 300), 8)
                content[places] = generator.integers(0, 256, 8)
                path.write_bytes(content.tobytes())
                try:
                    assert open_image(path).mode == "RGB"
                except ImageError as error:
                    refused += 1
                    assert str(error).startswith(str(path))
    assert refused > 50


def png_of(width: int, height: int) -> bytes:
    """A black one-bit PNG, a few kilobytes for any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("height", [10_000, 20_000], ids=["Pillow would warn", "Pillow would refuse"])
def test_a_decompression_bomb_is_refused(tmp_path, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(10_000, height))
    with pytest.raises(ImageError, match=r"bomb\.png: .*decompression bomb"):
        open_image(path)


@pytest.fixture
def limit_of_1000_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


@pytest.mark.usefixtures("limit_of_1000_pixels")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"format": "MPO", "save_all": True}])
def test_a_jpeg_above_the_limit_is_read_at_half_its_size(tmp_path, options):
    path = saved(corners().resize((61, 37), Image.Resampling.NEAREST), tmp_path / "large.jpg", **options)
    small = open_image(path)
    assert small.size == (31, 19)
    assert small.getpixel((3, 3))[0] > 200 and small.getpixel((27, 3))[1] > 200


@pytest.mark.usefixtures("limit_of_1000_pixels")
def test_a_jpeg_read_at_half_its_size_is_upright(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    large = corners().resize((60, 36), Image.Resampling.NEAREST).transpose(Image.Transpose.ROTATE_90)
    upright = open_image(saved(large, tmp_path / "large.jpg", exif=exif))
    assert upright.size == (30, 18) and upright.getpixel((3, 3))[0] > 200


@pytest.mark.usefixtures("limit_of_1000_pixels")
def test_a_jpeg_far_above_the_limit_is_refused(tmp_path):
    path = saved(Image.new("RGB", (60, 43)), tmp_path / "bomb.jpg")
    with pytest.raises(ImageError, match=r"bomb\.jpg: 60 x 43 pixels .* decompression bombs"):
        open_image(path)


@pytest.mark.usefixtures("limit_of_1000_pixels")
def test_the_refusal_names_the_settings_that_let_the_image_in(tmp_path, monkeypatch):
    path = saved(Image.new("RGB", (60, 40)), tmp_path / "large.png")
    expected = r"--max-pixels 2400, the environment variable LAVIS_LITE_MAX_PIXELS=2400, or PIL"
    with pytest.raises(ImageError, match=expected):
        open_image(path)
    monkeypatch.setenv("LAVIS_LITE_MAX_PIXELS", "1000")  # so that it is put back
    set_max_pixels(2400)
    assert open_image(path).size == (60, 40)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_limit_can_be_set_by_the_environment(tmp_path):
    path = saved(Image.new("RGB", (60, 40)), tmp_path / "large.png")
    code = f"from lavis_lite.common.media.images import open_image; open_image({str(path)!r})"
    assert run_python(code, LAVIS_LITE_MAX_PIXELS="2400").returncode == 0
    assert "60 x 40 pixels are more than the limit of 2399" in (
        run_python(code, LAVIS_LITE_MAX_PIXELS="2399").stderr
    )
    assert "ConfigError: LAVIS_LITE_MAX_PIXELS: expected a number of pixels above 0, found '2 GP'." in (
        run_python(code, LAVIS_LITE_MAX_PIXELS="2 GP").stderr
    )


@pytest.mark.usefixtures("limit_of_1000_pixels")
def test_a_file_larger_than_its_pixels_can_be_is_not_read(tmp_path):
    path = saved(corners(), tmp_path / "sparse.webp")
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # of which nothing is on disk
    with pytest.raises(
        ImageError, match=r"sparse\.webp: holds 1099511627776 bytes, more than an image of 1000"
    ):
        open_image(path)


def test_an_image_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "wide.png"
    path.write_bytes(png_of(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", 2**31 - 1, 1), 1))
    content = path.read_bytes()
    header = content[12:29]
    path.write_bytes(content[:29] + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(ImageError, match=r"wide\.png: there is not enough memory .* 2147483647 x 1 pixels"):
        open_image(path)


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"pipe\.jpg: is a named pipe, not a file"):
        open_image(tmp_path / "pipe.jpg")


def test_a_link_to_a_device_is_refused_without_reading_it(tmp_path):
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    with pytest.raises(ImageError, match=r"endless\.jpg: is a device, not a file"):
        open_image(tmp_path / "endless.jpg")


def test_the_content_decides_about_the_format_not_the_name(tmp_path):
    for name in ("picture.png", "picture", "picture.txt"):
        assert open_image(saved(corners(), tmp_path / name, format="WEBP", lossless=True)).size == (32, 16)


def test_an_error_shows_a_name_that_is_not_utf_8_on_one_line(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9\n.jpg")
    path.write_text("no picture")
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{tmp_path}/caf\\xe9\\n.jpg: not an image")


def test_damaged_metadata_around_good_pixels_is_no_news(tmp_path):
    tiff = b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # an entry of 65535
    saved(corners(), tmp_path / "odd.jpg", exif=b"Exif\0\0" + tiff)
    code = (
        "import sys, warnings; warnings.simplefilter('always'); "
        "from lavis_lite.common.media.images import open_image; open_image(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "odd.jpg"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_that_cannot_seek_is_read():
    buffer = io.BytesIO()
    corners().save(buffer, "PNG")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(buffer.getvalue())
    with os.fdopen(reading, "rb") as file:
        assert open_image(file).size == (32, 16)


def test_a_format_outside_the_list_is_refused(tmp_path):
    path = saved(corners(), tmp_path / "picture.png", format="TGA")
    with pytest.raises(ImageError, match="of no format that is read"):
        open_image(path)


def test_a_stream_is_called_as_the_caller_says():
    with pytest.raises(ImageError, match="shard 3, sample 17: not an image"):
        open_image(io.BytesIO(b"no picture at all"), name="shard 3, sample 17")


def test_what_is_not_an_image_is_refused_with_the_remedy():
    message = r"found str; open files with lavis_lite\.common\.media\.images\.open_image"
    with pytest.raises(TypeError, match=message):
        to_upright_rgb("picture.jpg")
