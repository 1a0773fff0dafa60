"""What every model is: built from a `Config`, loaded strictly, told about each optimizer step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from lavis_lite.common.checkpoint.store import CheckpointError, load_strictly
from lavis_lite.common.checkpoint.weights import without_wrappers
from lavis_lite.common.config.layering import model_defaults
from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.models.weights.adapters.addresses import Weights, load_address
from lavis_lite.models.weights.adapters.recognize import arch_of, explain_misfit

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class BaseModel(nn.Module):
    """A model that a config can name.

    A subclass declares its settings in a `Config` dataclass, takes it in its constructor, and
    implements `forward(samples)`, which returns a mapping with "loss". `default_configs` maps its
    model types to default yaml files.
    """

    default_configs: ClassVar[Mapping[str, str]] = {}
    # (processor, split) -> settings that a processor takes from the model's config unless it sets them.
    shared_settings: ClassVar[Mapping[tuple[str, str], tuple[str, ...]]] = {
        ("vis_processor", "train"): ("image_size",),
        ("vis_processor", "eval"): ("image_size",),
        ("text_processor", "train"): ("prompt",),
    }
    # Weights that a training step may leave without gradient, which the ranks must reckon with:
    # "none", "same" (those of the first step, in every step), or "varying".
    unused_parameters: ClassVar[Literal["none", "same", "varying"]] = "none"

    @dataclass
    class Config:
        """Where weights come from.

        `finetuned` is taken if `load_finetuned`, else `pretrained` if `load_pretrained`.
        """

        load_finetuned: bool = True
        finetuned: str | None = None
        load_pretrained: bool = True
        pretrained: str | None = None

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.trained_steps: int | None = None  # of the weights that were loaded, where their file says

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from a mapping of `Config` fields and load the weights it names.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        model = cls(parse(cls.Config, config, where="model"))
        model.load_checkpoint_from_config()
        return model

    @classmethod
    def from_pretrained(cls, model_type: str | None, **overrides: Any) -> Self:
        """Build the published model of this type."""
        return cls.from_config({**model_defaults(cls, model_type)["model"], **overrides})

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    def forward(self, samples: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a mapping with "loss", and "loss_weight" where that is not the batch size."""
        raise NotImplementedError

    def load_checkpoint_from_config(self) -> None:
        """Load the finetuned or the pretrained weights, whichever the config asks for."""
        if self.config.load_finetuned and self.config.finetuned:
            self.load_checkpoint(self.config.finetuned)
        elif self.config.load_pretrained and self.config.pretrained:
            self.load_checkpoint(self.config.pretrained)

    def load_checkpoint(self, url_or_filename: str | Path) -> None:
        """Load a checkpoint: a file, a URL, a hub name, or the folder of a run or of transformers.

        Published weights that cannot be had at their URL come from the hub, with a warning.

        Raises:
            CheckpointError: it cannot be had, or a key that the model needs is missing or
                mis-shaped; all are named.
        """
        run = RunFolder.at(url_or_filename)
        self.load(load_address(url_or_filename if run is None else run.weights()))

    def load(self, weights: Weights) -> None:
        """Take what an address gave: of a resumable checkpoint the average of its weights, if it keeps one.

        Raises:
            CheckpointError: it does not fit; what it is instead is said first, where that can be told.
        """
        own, checkpoint = self.state_dict(), weights.checkpoint
        state_dict = without_wrappers(checkpoint["model"], own.keys(), weights.source)
        try:
            self.load_weights(state_dict, source=weights.source)
        except CheckpointError as error:
            reason = explain_misfit({**checkpoint, "model": state_dict}, own, self._arch())
            if not reason:
                raise
            details = str(error).removeprefix(f"{weights.source}: ")
            raise CheckpointError(f"{weights.source}: {reason} {details}") from error
        if (arch := arch_of(checkpoint)) not in (None, self._arch()):
            logger.info("%s: holds the weights of %s; %s took its parts.", weights.source, arch, self._arch())
        self._take_average(checkpoint.get("average"), weights.source)
        state = checkpoint.get("state")
        step = state.get("step") if isinstance(state, Mapping) else checkpoint.get("step")
        self.trained_steps = step if isinstance(step, int) else None
        settings = checkpoint.get("inference") or {}
        if not isinstance(settings, Mapping):
            raise CheckpointError(f"{weights.source}: the file is damaged: 'inference' is no mapping.")
        self.load_inference_settings(settings)

    def _arch(self) -> str:
        """Return the name that this model is registered under, or its class's name."""
        names = registry.list_models()
        return next((n for n in names if registry.get_model_class(n) is type(self)), type(self).__name__)

    @torch.no_grad()
    def _take_average(self, average: Any, source: str) -> None:
        """Exchange parameters for the average that a resumable checkpoint keeps of them, if it keeps one."""
        if not isinstance(average, Mapping):
            return
        parameters = dict(self.named_parameters())
        if any(n not in parameters or parameters[n].shape != value.shape for n, value in average.items()):
            logger.warning("%s: its average of weights is of another model and is not used.", source)
            return
        for name, value in average.items():
            parameters[name].copy_(value)

    def load_weights(self, state_dict: Mapping[str, torch.Tensor], source: str) -> None:
        """Take `state_dict`, strictly; a subclass says here which differences it can bridge."""
        load_strictly(self, state_dict, source)

    def text_collator(self) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        """Return what the workers that read training batches call on each, or None.

        It must be possible to pickle it. Models that read texts have them tokenized there.
        """
        return None

    def inference_settings(self) -> dict[str, Any]:
        """Return what a checkpoint should remember about how to use this model; plain values only."""
        return {}

    def load_inference_settings(self, settings: Mapping[str, Any]) -> None:
        """Take what `inference_settings` returned when the checkpoint was written."""

    def after_step(self) -> None:
        """Follow one optimizer step (momentum copies do); called once a step, also under accumulation."""

    def after_skipped_step(self) -> None:
        """Forget what was kept for `after_step`: the step was left out."""

    def save_pretrained_files(self, folder: Path) -> None:
        """Write what is needed beside the weights to use a checkpoint elsewhere (a tokenizer, say)."""

    def freeze_parts(self, names: Iterable[str], unfreeze_last_vision_layers: int = 0) -> None:
        """Stop training of the parts called `names`, except the last N blocks of a vision transformer.

        Raises:
            ValueError: the model has no such part.
        """
        parts = dict(self.named_modules())
        for name in names:
            if name not in parts or not name:
                known = ", ".join(child for child, _ in self.named_children())
                raise ValueError(f"run.freeze: the model has no part {name!r}; its parts are {known}.")
            parts[name].requires_grad_(False)
        if unfreeze_last_vision_layers:
            vision = self.visual_encoder
            for part in (*vision.blocks[-unfreeze_last_vision_layers:], vision.norm):
                part.requires_grad_(True)

    def compile_parts(self) -> None:
        """Run the model through torch.compile; the names of its weights stay."""
        self.compile(dynamic=True)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; parts with nothing to train stay deterministic."""
        super().train(mode)
        if mode:
            for part in self.modules():
                parameters = list(part.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    part.eval()
        return self

    def show_n_params(self, return_str: bool = True) -> str | int:
        """Return how many parameters there are, as "224.0M" or as a number."""
        total = sum(parameter.numel() for parameter in self.parameters())
        if not return_str:
            return total
        return f"{total / 1e6:.1f}M" if total >= 1e6 else f"{total / 1e3:.1f}K"
