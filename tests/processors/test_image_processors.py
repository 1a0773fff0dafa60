"""The image processors: equal to their peers, fixed by a seed, strict in their settings."""

import pickle
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import ExifTags, Image
from torchvision import transforms

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.processors import BlipImageEvalProcessor, BlipImageTrainProcessor, load_processor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BICUBIC = transforms.InterpolationMode.BICUBIC


def picture(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """Noise of several scales, so that resizing up and down both have something to get wrong."""
    generator = numpy.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 9, 3), dtype=numpy.uint8)
    fine = generator.integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.blend(Image.fromarray(coarse).resize((width, height)), Image.fromarray(fine), 0.3)


def torchvision_end() -> list:
    return [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


@pytest.mark.parametrize("size", [(90, 60), (500, 333), (48, 48), (1, 70), (640, 480)])
@pytest.mark.parametrize("image_size", [48, 224, 384])
def test_evaluation_equals_torchvision_bit_for_bit(size, image_size):
    image = picture(*size)
    peer = transforms.Compose([transforms.Resize((image_size, image_size), BICUBIC), *torchvision_end()])
    ours = BlipImageEvalProcessor.build(image_size=image_size)(image)
    assert torch.equal(ours, peer(image))


@pytest.mark.parametrize("size", [(90, 60), (500, 333), (640, 480)])
def test_evaluation_equals_transformers(size):
    import transformers

    image = picture(*size)
    # early versions 5 have the Pillow one under the plain name
    peer = getattr(transformers, "BlipImageProcessorPil", transformers.BlipImageProcessor)
    theirs = peer()(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(BlipImageEvalProcessor()(image), theirs, rtol=0, atol=1e-6)


def test_training_without_random_augment_equals_torchvision_bit_for_bit():
    image = picture(200, 150)
    ours = BlipImageTrainProcessor.build(image_size=96, min_scale=0.3, max_scale=0.9, random_augment=False)
    crop = transforms.RandomResizedCrop(96, scale=(0.3, 0.9), interpolation=BICUBIC)
    peer = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *torchvision_end()])
    for seed in range(10):
        torch.manual_seed(seed)
        result = ours(image)
        torch.manual_seed(seed)
        assert torch.equal(result, peer(image))


@pytest.mark.parametrize("name", ["blip_image_train", "blip_image_eval"])
def test_the_output_is_a_contiguous_float_square_of_384(name):
    result = load_processor(name)(picture())
    assert (result.shape, result.dtype) == ((3, 384, 384), torch.float32)
    assert result.is_contiguous()


@pytest.mark.parametrize("name", ["blip_image_train", "blip_image_eval"])
def test_mean_and_std_are_taken_from_the_config(name):
    processor = load_processor(name, {"image_size": 32, "mean": [0.5, 0, 0.25], "std": [0.5, 1, 2]})
    result = processor(Image.new("RGB", (40, 40), (255, 255, 0)))
    assert result.amax(dim=(1, 2)).tolist() == [1.0, 1.0, -0.125]


@pytest.mark.parametrize("name", ["blip_image_train", "blip_image_eval"])
@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16", "F", "1"])
def test_every_mode_is_taken(name, mode):
    if mode == "I;16":
        image = Image.fromarray(numpy.full((30, 40), 65535, dtype=numpy.uint16))
    else:
        image = Image.new("RGB", (40, 30), "white").convert(mode)
    result = load_processor(name, {"image_size": 16, "mean": [0, 0, 0], "std": [1, 1, 1]})(image)
    assert result.shape == (3, 16, 16)
    assert result.max() == 1.0


def test_exif_orientation_is_obeyed():
    upright = picture(64, 32)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ExifTags.Base.Orientation] = 6
    processor = BlipImageEvalProcessor.build(image_size=48)
    assert torch.equal(processor(turned), processor(upright))


EVERYTHING = {"image_size": 64, "color_jitter": 0.4, "rotation_degrees": 20.0}


@pytest.mark.parametrize("settings", [{"image_size": 64}, EVERYTHING], ids=["recipe", "everything on"])
def test_the_seed_fixes_the_augmented_tensor(settings):
    processor = BlipImageTrainProcessor.build(**settings)
    torch.manual_seed(5)
    first = torch.stack([processor(picture()) for _ in range(8)])
    torch.manual_seed(5)
    # another instance, and other generators in other states, change nothing
    numpy.random.seed(1)
    again = pickle.loads(pickle.dumps(processor))
    assert torch.equal(torch.stack([again(picture()) for _ in range(8)]), first)
    torch.manual_seed(6)
    assert not torch.equal(torch.stack([again(picture()) for _ in range(8)]), first)


def test_the_given_image_is_not_changed():
    image = picture()
    before = image.tobytes()
    for seed in range(20):
        torch.manual_seed(seed)
        BlipImageTrainProcessor.build(**EVERYTHING)(image)
    assert image.tobytes() == before


def whole_image(**settings) -> BlipImageTrainProcessor:
    """Augment by `settings` alone: of a square at full scale nothing is cropped."""
    off = {"image_size": 32, "min_scale": 1.0, "horizontal_flip": 0.0, "random_augment": False}
    return BlipImageTrainProcessor.build(**{**off, **settings})


def test_horizontal_flip_is_a_probability():
    left_dark = Image.new("RGB", (64, 64), "white")
    left_dark.paste((0, 0, 0), (0, 0, 32, 64))
    for probability, expected in ((0.0, 0), (1.0, 30)):
        processor = whole_image(horizontal_flip=probability)
        flipped = sum(
            bool(out[0, 16, -1] < out[0, 16, 0]) for out in (processor(left_dark) for _ in range(30))
        )
        assert flipped == expected


def test_color_jitter_and_rotation_are_off_unless_asked_for():
    torch.manual_seed(0)
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    same = whole_image()(grey)
    assert torch.equal(whole_image(color_jitter=0)(grey), same)
    assert not torch.equal(whole_image(color_jitter=0.5)(grey), same)
    assert not torch.equal(whole_image(color_jitter={"brightness": 0.5})(grey), same)
    assert torch.equal(whole_image(color_jitter={"saturation": 0.5})(grey), same)  # grey has none
    rotated = whole_image(rotation_degrees=45.0)(grey)
    assert torch.equal(rotated[:, 16, 16], same[:, 16, 16])
    filled = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    corners = [whole_image(rotation_degrees=45.0)(grey)[:, 0, 0] for _ in range(10)]
    assert any(torch.allclose(corner, filled) for corner in corners)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imagesize": 384}, "imagesize is not a key of BlipImageTrainProcessor; did you mean image_size?"),
        ({"image_size": "big"}, "image_size: expected a whole number, found 'big'"),
        ({"image_size": 0}, "image_size: must be at least 1 pixel"),
        ({"mean": [0.5, 0.5]}, "mean: expected 3 values or null"),
        ({"std": [0.5, 0.5, 0]}, "std: must be positive"),
        ({"min_scale": 0.8, "max_scale": 0.5}, "0 < min_scale <= max_scale <= 1 must hold"),
        ({"horizontal_flip": 2}, "horizontal_flip: is a probability"),
        ({"rotation_degrees": -1}, "rotation_degrees: must lie in 0..180"),
        ({"color_jitter": {"brightnes": 1}}, "did you mean brightness?"),
        ({"color_jitter": {"hue": 0.6}}, "hue not above 0.5"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings, message):
    with pytest.raises(ConfigError) as caught:
        load_processor("blip_image_train", settings)
    assert message in str(caught.value)


def test_a_path_in_place_of_an_image_is_refused():
    with pytest.raises(TypeError, match="expected a PIL image, found str"):
        BlipImageEvalProcessor()("picture.jpg")


def test_evaluation_does_not_import_torchvision():
    code = (
        "import sys; from lavis_lite.processors import load_processor; "
        "load_processor('blip_image_eval'); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
