"""What models accept: samples with the keys that they need, images, texts; anything else is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite.common.decoding import lone_surrogate
from lavis_lite.common.registry import nearest, registry
from lavis_lite.common.sample_errors import InputError, MissingKeyError
from lavis_lite.common.texts import TokenizedTexts

# Normalized pixels lie within about 2.7 of zero; a mean and deviation of one's own may lead further.
LARGEST_PIXEL = 30.0
PROCESSOR_HINT = 'use vis_processors["eval"](pil_image), or give PIL images'


def checked_samples(samples: Any, *keys: str) -> dict[str, Any]:
    """Return `samples` with each of `keys`, "text_input" as a list of texts.

    Args:
        samples: what a person gave; a single text becomes a list of one.
        keys: those that the model needs; samples["video"] may stand in for "image".

    Raises:
        InputError: not a mapping, a key that is missing, or texts that are not texts.
    """
    if not isinstance(samples, Mapping):
        raise InputError(
            f"samples is a {type(samples).__name__}; give a dict such as "
            '{"image": images, "text_input": texts}.'
        )
    checked = dict(samples)
    for key in keys:
        if checked.get(key) is None and not (key == "image" and checked.get("video") is not None):
            present = [str(name) for name in samples if samples[name] is not None]
            near = nearest(key, [name for name in present if name not in keys])
            raise MissingKeyError(
                key,
                f"the model needs samples[{key!r}]; samples has {', '.join(present) or 'nothing'}."
                + (f" Did you mean {near[0]}?" if near else ""),
            )
        if key == "text_input":
            checked[key] = checked_texts(checked[key], f"samples[{key!r}]")
    return checked


def checked_texts(texts: Any, where: str) -> Sequence[str]:
    """Return `texts` as a list of texts.

    Args:
        texts: a list of texts, or one text.
        where: how errors name them.

    Raises:
        InputError: no text at all, something that is not a text, or a text that is not valid Unicode.
    """
    if isinstance(texts, TokenizedTexts):
        return texts  # checked where they were tokenized
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InputError(f"{where} is a {type(texts).__name__}; give a list of texts, one an image.")
    if not texts:
        raise InputError(f"{where} is empty; give at least one text.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{where}[{index}] is a {type(text).__name__} ({text!r:.60}), not a text.")
        place = lone_surrogate(text)
        if place is not None:
            raise InputError(
                f"{where}[{index}] is not valid Unicode: a lone surrogate (half a character) at {place}."
            )
    return texts


def checked_images(images: Any, size: int, like: nn.Parameter) -> Tensor:
    """Return `images` as a tensor (images, 3, size, size) that the model can take.

    Args:
        images: such a tensor, in any floating-point type; a PIL image, or a list of them, which are
            processed as `blip_image_eval` does.
        size: side in pixels that the model was built for.
        like: a weight of the model, whose type and device the images must have.

    Raises:
        InputError: anything else; the message says what it is and what to do.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple):
        images = _processed(images, size)
        images = images.to(like.device)
    if not isinstance(images, Tensor):
        raise InputError(f"the images are a {type(images).__name__}, not a tensor; {PROCESSOR_HINT}.")
    if images.layout != torch.strided:
        raise InputError("the images are a sparse tensor; call image.to_dense().")
    _check_shape(images, size)
    if not images.is_floating_point():
        raise InputError(f"the images are {images.dtype}, not normalized float values; {PROCESSOR_HINT}.")
    if images.device.type != like.device.type:
        raise InputError(
            f"the images are on {images.device} and the model is on {like.device}; "
            "call image.to(model.device)."
        )
    if images.dtype != like.dtype and not torch.is_autocast_enabled(images.device.type):
        images = images.to(like.dtype)
    if _may_look_at(images):
        _check_values(images)
    return images


def check_text_count(texts: Sequence[str], images: int) -> None:
    """Refuse texts that do not share out evenly among the images.

    Raises:
        InputError: they do not.
    """
    if len(texts) % images:
        raise InputError(
            f"{len(texts)} texts do not share out among {images} images; give every image the same number "
            "of texts."
        )


def checked_labels(samples: Mapping[str, Any], count: int, classes: int, device: torch.device) -> Tensor:
    """Return samples["label"] as numbers (count,) of classes, on `device`.

    Args:
        samples: of the model; "label" a tensor or a list of whole numbers.
        count: how many there must be.
        classes: how many classes the model tells apart.

    Raises:
        InputError: missing, not whole numbers, another count, or no class of the model.
    """
    given = checked_samples(samples, "label")["label"]
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"samples['label'] ({given!r:.60}) is not a list of class numbers.") from error
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"samples['label'] holds {labels.dtype} values; give class numbers.")
    if labels.shape != (count,):
        raise InputError(
            f"samples['label'] has shape {tuple(labels.shape)}; expected ({count},), one a sample."
        )
    if _may_look_at(labels) and count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        wrong = next(label for label in labels.tolist() if not 0 <= label < classes)
        raise InputError(f"samples['label'] holds {wrong}; the model has classes 0 to {classes - 1}.")
    return labels.long().to(device)


def _may_look_at(tensor: Tensor) -> bool:
    """Return False in training on a GPU: the host would wait for the device at every step."""
    return tensor.device.type == "cpu" or not torch.is_grad_enabled()


def _processed(images: Sequence[Any], size: int) -> Tensor:
    """Return PIL images as the evaluation processor makes them."""
    if not images:
        raise InputError("the list of images is empty; give at least one.")
    if all(isinstance(image, Tensor) for image in images):
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            raise InputError(
                f"the images have different shapes: {', '.join(map(str, shapes))}; {PROCESSOR_HINT}."
            )
        return torch.stack(list(images))
    for index, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise InputError(f"image {index} is a {type(image).__name__}, not a PIL image; {PROCESSOR_HINT}.")
    processor = registry.get_processor_class("blip_image_eval").build(image_size=size)
    return torch.stack([processor(image) for image in images])


def _check_shape(images: Tensor, size: int) -> None:
    shape = tuple(images.shape)
    if len(shape) == 3:
        raise InputError(f"the image has shape {shape}; call image.unsqueeze(0) to make a batch of one.")
    if len(shape) != 4:
        raise InputError(f"the images have shape {shape}; expected (images, 3, {size}, {size}).")
    if shape[0] == 0:
        raise InputError("the batch holds no image; give at least one.")
    if shape[1] != 3:
        hint = "channels must come before height and width" if shape[3] == 3 else PROCESSOR_HINT
        raise InputError(f"the images have shape {shape}, with {shape[1]} channels in place of 3; {hint}.")
    if shape[2:] != (size, size):
        raise InputError(
            f"the model takes {size} x {size} pixels but the images have {shape[2]} x {shape[3]}; give the "
            f"image processor image_size={size}, or build the model with another image_size."
        )


def _check_values(images: Tensor) -> None:
    """Refuse pixels that no processor makes: they would be captioned, and wrongly."""
    smallest, largest = (value.item() for value in images.detach().aminmax())
    if not (abs(smallest) <= LARGEST_PIXEL and abs(largest) <= LARGEST_PIXEL):
        finite = torch.isfinite(images).flatten(1).all(1)
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise InputError(f"image {index} of the batch holds NaN or infinite pixels.")
        raise InputError(
            f"the pixels reach from {smallest:g} to {largest:g}: they are not normalized; {PROCESSOR_HINT}."
        )
