"""Checks of what a model is called with: samples and their keys, images, texts, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite.common.decoding import lone_surrogate
from lavis_lite.common.registry import nearest, registry
from lavis_lite.common.sample_errors import InputError, MissingKeyError
from lavis_lite.common.texts import TokenizedTexts

# Normalized pixels lie within about 2.7 of zero; with another mean and deviation they may be larger.
MAX_PIXEL = 30.0
PROCESSOR_HINT = 'use vis_processors["eval"](pil_image), or give PIL images'


def checked_samples(samples: Any, *keys: str) -> dict[str, Any]:
    """Return `samples` as a dict that has `keys`; a single "text_input" becomes a list of one.

    Args:
        samples: argument of the model.
        keys: that the model needs; "video" may stand in for "image".

    Raises:
        InputError: not a mapping, a missing key, or a "text_input" that is not a list of texts.
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
        where: name of `texts` in error messages.

    Raises:
        InputError: an empty list, something that is not a text, or a text that is not valid Unicode.
    """
    if isinstance(texts, TokenizedTexts):
        return texts  # checked where they were tokenized
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InputError(f"{where} is a {type(texts).__name__}; give a list of texts, one for each image.")
    if not texts:
        raise InputError(f"{where} is empty; give at least one text.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{where}[{index}] is a {type(text).__name__} ({text!r:.60}), not a text.")
        position = lone_surrogate(text)
        if position is not None:
            raise InputError(
                f"{where}[{index}] is not valid Unicode: a lone surrogate (half a character) at {position}."
            )
    return texts


def check_one_each(items: Sized, images: Sized, kind: str) -> None:
    """Raise an `InputError` unless there are as many items as images.

    Args:
        items: of any kind.
        images: of the batch.
        kind: what messages call the items, in the plural.
    """
    if len(items) != len(images):
        raise InputError(f"{len(items)} {kind} for {len(images)} images; give one for each image.")


def check_same_number_each(texts: Sized, images: Sized, hint: str = "") -> None:
    """Raise an `InputError` unless the texts can be divided evenly among the images.

    Args:
        texts: an image's texts adjacent.
        images: of the batch.
        hint: end of the message.
    """
    if len(texts) % len(images):
        raise InputError(
            f"{len(texts)} texts cannot be divided evenly among {len(images)} images; give every image the "
            f"same number of texts{hint}."
        )


def checked_labels(samples: Mapping[str, Any], logits: Tensor) -> Tensor:
    """Return samples["label"] as class numbers (pairs,), on the device of `logits`.

    Args:
        samples: of the model; "label" is a tensor or a list of integers.
        logits: (pairs, classes).

    Raises:
        InputError: missing, not integers, another number of them, or not classes of the model.
    """
    count, classes = logits.shape
    values = checked_samples(samples, "label")["label"]
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"samples['label'] ({values!r:.60}) is not a list of class numbers.") from error
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"samples['label'] holds {labels.dtype} values; give class numbers.")
    if labels.shape != (count,):
        raise InputError(
            f"samples['label'] has shape {tuple(labels.shape)}; expected ({count},), one for each sample."
        )
    if _may_read(labels) and count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        wrong = next(label for label in labels.tolist() if not 0 <= label < classes)
        raise InputError(f"samples['label'] holds {wrong}; the model has classes 0 to {classes - 1}.")
    return labels.long().to(logits.device)


def checked_images(images: Any, size: int, like: nn.Parameter) -> Tensor:
    """Return `images` as a tensor (images, 3, size, size) for the model.

    Args:
        images: such a tensor, of any floating-point type; or a PIL image or a list of PIL images, which
            are processed as `blip_image_eval` does.
        size: side in pixels that the model was built for.
        like: a weight of the model, on whose device the images must be; they are converted to its type.

    Raises:
        InputError: anything else.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple):
        images = _stacked(images, size).to(like.device)
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
    if _may_read(images):
        _check_pixels(images)
    return images


def _may_read(tensor: Tensor) -> bool:
    """Return False in training on a GPU, where reading values would make the host wait at every step."""
    return tensor.device.type == "cpu" or not torch.is_grad_enabled()


def _stacked(images: Sequence[Any], size: int) -> Tensor:
    """Return a list of tensors as one, or a list of PIL images as the evaluation processor makes them."""
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


def _check_pixels(images: Tensor) -> None:
    """Refuse pixels that no processor makes: the model would read them, and be wrong."""
    smallest, largest = (value.item() for value in images.detach().aminmax())
    if abs(smallest) <= MAX_PIXEL and abs(largest) <= MAX_PIXEL:
        return
    finite = torch.isfinite(images).flatten(1).all(1)
    if not finite.all():
        index = int((~finite).nonzero()[0])
        raise InputError(f"image {index} of the batch holds NaN or infinite pixels.")
    raise InputError(
        f"the pixels reach from {smallest:g} to {largest:g}: they are not normalized; {PROCESSOR_HINT}."
    )
