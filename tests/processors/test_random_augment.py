"""RandomAugment, operation by operation, against BLIP's definitions."""

import math

import numpy
import pytest
import torch
from PIL import Image

from lavis_lite.processors.augment import OPERATIONS, RandomAugment

SIZE = 64


def smooth_image() -> Image.Image:
    """Gentle slopes, different in x, y and channel: interpolation shows, rounding hardly."""
    y, x = numpy.mgrid[0:SIZE, 0:SIZE].astype(numpy.float64)
    channels = [40 + 2 * x + y / 2, 200 - 1.5 * x - y, 60 + 1.2 * x + 0.8 * y]
    return Image.fromarray(numpy.stack(channels, axis=-1).round().astype(numpy.uint8))


def noise_image() -> Image.Image:
    pixels = numpy.random.default_rng(0).integers(30, 220, (SIZE, SIZE, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def seen_results(name: str, image: Image.Image, magnitude: float = 5) -> list[numpy.ndarray]:
    """Every distinct result of one operation over 40 draws, without the unchanged image."""
    augment = RandomAugment(number_of_operations=1, magnitude=magnitude, operations=[name])
    torch.manual_seed(0)
    results = {augment(image).tobytes() for _ in range(40)} - {image.tobytes()}
    return [numpy.frombuffer(result, numpy.uint8).reshape(SIZE, SIZE, 3) for result in sorted(results)]


# operation -> for one of its two directions (sign +1 or -1), where pixel (x, y) comes from
CENTER = SIZE / 2
SOURCES = {
    "ShearX": lambda x, y, sign: (x - sign * 0.15 * y, y),
    "ShearY": lambda x, y, sign: (x, y - sign * 0.15 * x),
    "TranslateX": lambda x, y, sign: (x + sign * 5, y),
    "TranslateY": lambda x, y, sign: (x, y + sign * 5),
    "Rotate": lambda x, y, sign: turned(x, y, math.radians(sign * 15)),
}


def turned(x, y, angle):
    across, down = x - CENTER, y - CENTER
    return (
        CENTER + math.cos(angle) * across - math.sin(angle) * down,
        CENTER + math.sin(angle) * across + math.cos(angle) * down,
    )


def sampled(image: Image.Image, name: str, sign: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Interpolate linearly where `name` takes its pixels from.

    Returns the values, and masks of pixels that lie inside and that lie well outside.
    """
    pixels = numpy.asarray(image).astype(numpy.float64)
    y, x = numpy.mgrid[0:SIZE, 0:SIZE].astype(numpy.float64)
    x, y = SOURCES[name](x, y, sign)
    inside = (x >= 0) & (x <= SIZE - 1) & (y >= 0) & (y <= SIZE - 1)
    outside = (x < -1) | (x > SIZE) | (y < -1) | (y > SIZE)
    left = numpy.clip(numpy.floor(x), 0, SIZE - 2).astype(int)
    top = numpy.clip(numpy.floor(y), 0, SIZE - 2).astype(int)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, left + 1] * across
    lower = pixels[top + 1, left] * (1 - across) + pixels[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down, inside, outside


@pytest.mark.parametrize("name", SOURCES)
def test_a_geometric_operation_goes_both_ways_by_blips_amount(name):
    image = smooth_image()
    results = seen_results(name, image)
    assert len(results) == 2
    distances = []
    for sign in (1, -1):
        expected, inside, _ = sampled(image, name, sign)
        distances.append([numpy.abs(result - expected)[inside].max() for result in results])
    # one result for each direction, and not for the other
    matched = [min(range(2), key=row.__getitem__) for row in distances]
    assert sorted(matched) == [0, 1]
    assert max(min(row) for row in distances) <= 1.01  # rounding
    assert min(max(row) for row in distances) > 5


@pytest.mark.parametrize("name", SOURCES)
def test_a_geometric_operation_leaves_grey_128_behind(name):
    image = noise_image()
    results = seen_results(name, image)
    filled = [bool((result[sampled(image, name, 1)[2]] == 128).all()) for result in results]
    assert sorted(filled) == [False, True]  # the other direction uncovers the other side
    for result in results:
        assert (result == 128).all(axis=-1).sum() > SIZE


@pytest.mark.parametrize("name", ["Identity", "Brightness", "Sharpness"])
def test_brightness_and_sharpness_change_nothing_at_magnitude_5(name):
    assert seen_results(name, noise_image()) == []


def test_brightness_at_another_magnitude_scales_the_values():
    (result,) = seen_results("Brightness", noise_image(), magnitude=10)
    expected = numpy.clip(numpy.asarray(noise_image()) * 1.9, 0, 255)
    assert numpy.abs(result - expected).max() <= 1


def test_sharpness_at_another_magnitude_blends_with_the_smoothed_image():
    (result,) = seen_results("Sharpness", noise_image(), magnitude=0)
    pixels = numpy.asarray(noise_image()).astype(numpy.float64)
    smooth = sum(
        (5 if (dy, dx) == (0, 0) else 1) / 13 * numpy.roll(pixels, (dy, dx), (0, 1))
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    expected = 0.1 * pixels + 0.9 * smooth
    assert numpy.abs(result - expected)[1:-1, 1:-1].max() <= 1.5


def test_autocontrast_stretches_each_channel_by_its_own_extremes():
    (result,) = seen_results("AutoContrast", smooth_image())
    pixels = numpy.asarray(smooth_image()).astype(numpy.float64)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    scale = 255 / (high - low)
    assert numpy.array_equal(result, numpy.trunc(pixels * scale - low * scale))


def test_equalize_follows_each_channels_histogram():
    (result,) = seen_results("Equalize", noise_image())
    for channel, pixels in enumerate(numpy.moveaxis(numpy.asarray(noise_image()), -1, 0)):
        counts = numpy.bincount(pixels.ravel(), minlength=256)
        step = counts[counts > 0][:-1].sum() // 255
        below = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])
        table = numpy.clip((step // 2 + below) // step, 0, 255)
        assert numpy.array_equal(result[..., channel], table[pixels])


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_single_colour_stays_as_it_is(name):
    assert seen_results(name, Image.new("RGB", (SIZE, SIZE), (7, 80, 200))) == []


def test_operations_are_drawn_with_replacement_and_applied_half_the_time():
    torch.manual_seed(0)
    augment = RandomAugment(operations=["TranslateX"])
    image = noise_image()
    # of two translations of 5 pixels: both applied 1/4, one 1/2, none 1/4
    unchanged = sum(augment(image).tobytes() == image.tobytes() for _ in range(400))
    assert 70 <= unchanged <= 130


def test_all_ten_operations_are_drawn():
    torch.manual_seed(0)
    seen = {RandomAugment(probability=1.0)(noise_image()).tobytes() for _ in range(300)}
    alone = {image.tobytes() for name in OPERATIONS for image in seen_results(name, noise_image())}
    # 3 of the 10 change nothing at magnitude 5, 2 change the tones, 5 the shape in 2 directions
    assert len(OPERATIONS) == 10
    assert len(alone) == 12
    assert alone <= seen


def test_the_seed_fixes_the_result_and_the_number_of_draws():
    torch.manual_seed(3)
    first = [RandomAugment()(noise_image()).tobytes() for _ in range(20)]
    state = torch.get_rng_state()
    torch.manual_seed(3)
    assert [RandomAugment()(noise_image()).tobytes() for _ in range(20)] == first
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    for _ in range(20):
        RandomAugment(probability=0.0)(noise_image())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_operation_names_the_nearest():
    with pytest.raises(ValueError, match=r"No augmentation is called 'SheerX'\. Did you mean ShearX"):
        RandomAugment(operations=["SheerX"])


@pytest.mark.parametrize(
    "setting", [{"magnitude": 11}, {"probability": 1.5}, {"number_of_operations": -1}, {"operations": []}]
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ValueError, match=r"must lie|at least one"):
        RandomAugment(**setting)
