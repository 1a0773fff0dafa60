"""Captioning image files with a trained model."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import (
    add_code_arguments,
    add_max_pixels,
    import_user_code,
    non_empty,
    non_negative_int,
    positive_int,
    probability,
    seed_number,
)

if TYPE_CHECKING:
    import torch

    from lavis_lite.common.media.image_files import ImageFile

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite caption``."""
    parser = commands.add_parser("caption", help="caption image files")
    parser.add_argument("paths", nargs="+", type=non_empty, metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--checkpoint", default="", help="run folder, weights file or URL")
    parser.add_argument("--name", default="blip_caption", help="model, unless the checkpoint is a run folder")
    parser.add_argument(
        "--type", dest="model_type", default="base_coco", help="type of the model that --name names"
    )
    parser.add_argument(
        "--output",
        type=non_empty,
        help="file to write, standard output when left out; after a kill the same command continues",
    )
    parser.add_argument("--format", choices=("json", "csv"), help="by the name of the output when left out")
    parser.add_argument("--batch-size", type=positive_int, default=32)
    parser.add_argument("--num-workers", type=non_negative_int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add_max_pixels(parser)
    parser.add_argument("--num-captions", type=positive_int, default=1)
    parser.add_argument("--prompt", help="text that every caption starts with")
    parser.add_argument("--num-beams", type=positive_int)
    parser.add_argument("--max-length", type=positive_int, help="most tokens of a caption, prompt included")
    parser.add_argument("--min-length", type=non_negative_int, help="fewest tokens, prompt included")
    parser.add_argument(
        "--sample",
        action="store_true",
        default=None,
        dest="use_nucleus_sampling",
        help="nucleus sampling instead of beam search",
    )
    parser.add_argument("--top-p", type=probability)
    parser.add_argument(
        "--seed", type=seed_number, help="of sampling; an image's captions depend on no other"
    )
    add_code_arguments(parser)
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    from lavis_lite.commands.caption_output import CaptionJournal, check_output, write_captions, write_stream
    from lavis_lite.common.logs.setup import setup_logging
    from lavis_lite.common.media.image_files import find_images

    setup_logging()
    import_user_code(options, options.checkpoint)
    form = options.format or ("csv" if (options.output or "").endswith(".csv") else "json")
    files = find_images(options.paths)
    output = check_output(options.output, files) if options.output is not None else None
    captioner = load_captioner(options.checkpoint, options.name, options.model_type, options.device)
    settings = captioner.check(_generation(options), options.num_captions)
    work = CaptionWork(captioner, _generation(options), options.num_captions, options.seed)
    loading = {"batch_size": options.batch_size, "num_workers": options.num_workers}
    if output is None:
        return write_stream(work.caption(files, **loading), form)
    with CaptionJournal(output, settings) as journal:
        journal.extend(files, lambda missing: work.caption(missing, **loading))
        return write_captions(journal.records(files), output, form)


def _generation(options: argparse.Namespace) -> dict[str, Any]:
    """Return the prompt and the generation settings that the command line sets."""
    from lavis_lite.common.settings import GenerationSettings

    names = ["prompt", *(field.name for field in dataclasses.fields(GenerationSettings))]
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def load_captioner(checkpoint: str, name: str, model_type: str | None, device: str) -> Captioner:
    """Return the captioner that `checkpoint` holds, or the published one of this name and type.

    Raises:
        ConfigError: a model that does not caption; the message names those that do.
    """
    from lavis_lite.commands.model_choice import choose_device, model_of
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.registry import registry
    from lavis_lite.models import load_model_and_preprocess

    name, model_type = model_of(checkpoint, name, model_type)
    if not hasattr(registry.get_model_class(name), "generate"):
        captioners = [
            model for model in registry.list_models() if hasattr(registry.get_model_class(model), "generate")
        ]
        raise ConfigError(
            f"{checkpoint or '--name'}: the model {name} does not caption images. Choose one that does, by "
            f"--name or by its checkpoint: {', '.join(captioners)}."
        )
    picked = choose_device(device)
    model, vis_processors, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=picked, checkpoint=checkpoint or None
    )
    return Captioner(name, model_type, checkpoint, model, vis_processors["eval"], picked)


@dataclass
class Captioner:
    """A model that captions, and where it comes from.

    Attributes:
        name: registered name of the model.
        model_type: type of the model.
        checkpoint: where its weights come from; "" for its published ones.
        model: in evaluation mode, on `device`.
        processor: makes a tensor of an image.
        device: of the model.
    """

    name: str
    model_type: str | None
    checkpoint: str
    model: Any
    processor: Any
    device: torch.device

    def check(self, generation: Mapping[str, Any], num_captions: int) -> dict[str, Any]:
        """Check the settings against the model; return everything that the captions depend on.

        Raises:
            ConfigError: a setting that the model cannot use.
        """
        from lavis_lite.models.blip_models.blip_caption import BlipCaption

        settings = {"num_captions": num_captions, **generation}
        if isinstance(self.model, BlipCaption):
            settings |= dataclasses.asdict(_checked_generation(self.model, generation, num_captions))
        source = {"name": self.name, "model_type": self.model_type, "checkpoint": self.checkpoint}
        return {**source, "weights": self._weights(), **settings}

    def _weights(self) -> str:
        """Return a digest of the weights; "random" of a model that nothing was loaded into."""
        from lavis_lite.models.weights.digest import weights_digest

        config = self.model.config
        published = (config.load_finetuned and config.finetuned) or (
            config.load_pretrained and config.pretrained
        )
        if not self.checkpoint and not published:
            logger.warning(
                "%s %s has no published weights: its captions are random. Give --checkpoint.",
                self.name,
                self.model_type,
            )
            return "random"
        return weights_digest(self.model)


def _checked_generation(model: Any, generation: Mapping[str, Any], num_captions: int) -> Any:
    """Return the generation settings that will hold.

    Raises:
        ConfigError: one that the model cannot follow, by its name on the command line.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.settings import updated

    values = {**dataclasses.asdict(model.generation_settings), **generation}
    prompt = values.pop("prompt", model.prompt)
    longest, shortest = values["max_length"], values["min_length"]
    if shortest > longest:
        raise ConfigError(
            f"--min-length is {shortest} and --max-length {longest}, but the shortest caption must not be "
            "longer than the longest; give both."
        )
    settings = updated(model.generation_settings, values, where="generate")
    positions = model.text_config.max_position_embeddings
    if longest > positions:
        raise ConfigError(
            f"--max-length: {longest} is more than the {positions} tokens that the model reads."
        )
    prompt_length = len(model.tokenizer(prompt).input_ids) - 1  # without [SEP]
    if prompt_length >= longest:
        raise ConfigError(
            f"--prompt: takes {prompt_length} tokens, which leaves none of --max-length {longest}; raise "
            "it, or shorten the prompt."
        )
    if num_captions > settings.num_beams and not settings.use_nucleus_sampling:
        raise ConfigError(
            f"--num-captions: {num_captions} captions need as many beams, but there are "
            f"{settings.num_beams}; add --num-beams {num_captions}, or --sample."
        )
    return settings


@dataclass
class CaptionWork:
    """A captioner and how it is to caption.

    Attributes:
        captioner: the model.
        generation: what `BlipCaption.generate` takes, as far as it is set.
        num_captions: of each image.
        seed: of sampling; the seed of each image is derived from it and the file name. None for a random one.
    """

    captioner: Captioner
    generation: Mapping[str, Any]
    num_captions: int = 1
    seed: int | None = None

    def caption(
        self, files: Sequence[Path], batch_size: int = 32, num_workers: int = 2
    ) -> Iterator[dict[str, Any]]:
        """Yield ``{"image", "caption"}`` for each of `files`, in order.

        An image that cannot be read yields ``{"image", "error"}``; none is left out silently. With
        several captions an image, "caption" is a list.
        """
        import torch

        from lavis_lite.common.logs.progress import Progress
        from lavis_lite.common.media.image_files import read_images

        batches = read_images(files, self.captioner.processor, batch_size, num_workers)
        with Progress(len(files), "caption") as progress, torch.inference_mode():
            for items in batches:
                yield from self._caption_batch(items)
                progress.advance(len(items))

    def _caption_batch(self, items: Sequence[ImageFile]) -> Iterator[dict[str, Any]]:
        import torch

        readable = [item for item in items if item.image is not None]
        captions: Iterator[str] = iter(())
        if readable:
            images = torch.stack([item.image for item in items if item.image is not None]).to(
                self.captioner.device
            )
            seeds = (
                {} if self.seed is None else {"seed": [_seed_of(self.seed, item.path) for item in readable]}
            )
            captions = iter(
                self.captioner.model.generate(
                    {"image": images}, num_captions=self.num_captions, **self.generation, **seeds
                )
            )
        for path, image, error in items:
            if image is None:
                logger.warning("%s", error)
                yield {"image": str(path), "error": error}
            elif self.num_captions == 1:
                yield {"image": str(path), "caption": next(captions)}
            else:
                yield {"image": str(path), "caption": [next(captions) for _ in range(self.num_captions)]}


def _seed_of(seed: int, path: Path) -> int:
    """Return the seed of one image, so that neither its batch nor a restart changes its captions."""
    import hashlib

    name = f"{seed} {path.name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")
