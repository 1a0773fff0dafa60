"""The base class of models: built from a `Config`, loaded strictly, called after each optimizer step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lavis_lite.common.checkpoint.store import CheckpointError, load_strictly
from lavis_lite.common.checkpoint.weights import without_wrappers
from lavis_lite.common.config.layering import model_defaults
from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.models.layers.cpu import choose_layers
from lavis_lite.models.weights.adapters.addresses import Weights, load_address
from lavis_lite.models.weights.adapters.recognize import arch_of, explain_misfit

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class BaseModel(nn.Module):
    """A model that a config can name.

    A subclass declares its settings in a `Config` dataclass, which its constructor takes, and implements
    `forward(samples)`.
    """

    default_configs: ClassVar[Mapping[str, str]] = {}  # model type -> name or path of a yaml file
    # (processor, split) -> settings that a processor takes from the model's config unless it sets them.
    shared_settings: ClassVar[Mapping[tuple[str, str], tuple[str, ...]]] = {
        ("vis_processor", "train"): ("image_size",),
        ("vis_processor", "eval"): ("image_size",),
        ("text_processor", "train"): ("prompt",),
    }
    # Which weights a training step may leave without a gradient: "none", "same" (the same ones in every
    # step), or "varying". Data-parallel training depends on it.
    unused_parameters: ClassVar[Literal["none", "same", "varying"]] = "none"

    @dataclass
    class Config:
        """Sources of weights: finetuned ones if asked for, else pretrained ones if asked for.

        Attributes:
            load_finetuned: load the weights at `finetuned`, if it is set.
            finetuned: a file, URL, hub name or folder.
            load_pretrained: load the weights at `pretrained`, if it is set.
            pretrained: a file, URL, hub name or folder.
        """

        load_finetuned: bool = True
        finetuned: str | None = None
        load_pretrained: bool = True
        pretrained: str | None = None

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.trained_steps: int | None = None  # of the loaded weights, if their file says

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Config) -> Self:
        """Build from a mapping of `Config` fields or from a `Config`, and load the weights that it names.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        model = cls(config if isinstance(config, cls.Config) else parse(cls.Config, config, where="model"))
        model.load_checkpoint_from_config()
        return model

    @classmethod
    def from_pretrained(cls, model_type: str | None, **overrides: Any) -> Self:
        """Build the model of a type from its default yaml, with `overrides` of `Config` fields."""
        return cls.from_config({**model_defaults(cls, model_type)["model"], **overrides})

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def forward(self, samples: Any) -> Any:
        """Return the losses of a batch.

        Returns:
            a mapping with "loss", a scalar to minimize. It may have more keys: further losses "loss_...", to
            be shown; "report", a mapping of numbers that are shown but not minimized, as detached tensors;
            "loss_weight", the number of terms that "loss" is a mean of, if that is not the batch size.
        """
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaseModel:
        """Move or convert the weights; `to`, `cuda` and `half` call this. On a CPU, use its fast layers."""
        super()._apply(fn, recurse)
        if next(self.parameters(), None) is not None:
            choose_layers(self, self.device)
        return self

    def load_checkpoint_from_config(self) -> None:
        """Load the finetuned or the pretrained weights, as the config says."""
        if self.config.load_finetuned and self.config.finetuned:
            self.load_checkpoint(self.config.finetuned)
        elif self.config.load_pretrained and self.config.pretrained:
            self.load_checkpoint(self.config.pretrained)

    def load_checkpoint(self, url_or_filename: str | Path) -> None:
        """Load a checkpoint: a file, a URL, a hub name, or the folder of a run or of transformers.

        Published weights that cannot be downloaded from their URL come from the hub, with a warning.

        Raises:
            CheckpointError: it cannot be read, or keys are missing or have another shape; all are named.
        """
        run = RunFolder.at(url_or_filename)
        self.load(load_address(url_or_filename if run is None else run.weights()))

    def load(self, weights: Weights) -> None:
        """Load what an address holds; the average of the weights, if a resumable checkpoint has one.

        Raises:
            CheckpointError: the weights do not fit; the message starts with what they are, if that is known.
        """
        expected, checkpoint = self.state_dict(), weights.checkpoint
        state_dict = without_wrappers(checkpoint["model"], expected.keys(), weights.source)
        try:
            self.load_weights(state_dict, source=weights.source)
        except CheckpointError as error:
            reason = explain_misfit({**checkpoint, "model": state_dict}, expected, self._arch())
            if not reason:
                raise
            details = str(error).removeprefix(f"{weights.source}: ")
            raise CheckpointError(f"{weights.source}: {reason} {details}") from error
        if (arch := arch_of(checkpoint)) not in (None, self._arch()):
            logger.info("%s: holds the weights of %s; %s uses its parts.", weights.source, arch, self._arch())
        self._load_average(checkpoint.get("average"), weights.source)
        state = checkpoint.get("state")
        step = state.get("step") if isinstance(state, Mapping) else checkpoint.get("step")
        self.trained_steps = step if isinstance(step, int) else None
        settings = checkpoint.get("inference") or {}
        if not isinstance(settings, Mapping):
            raise CheckpointError(f"{weights.source}: the file is damaged: 'inference' is not a mapping.")
        self.load_inference_settings(settings)

    def _arch(self) -> str:
        """Return the name that this model is registered under, or its class's name."""
        names = registry.list_models()
        return next((n for n in names if registry.get_model_class(n) is type(self)), type(self).__name__)

    @torch.no_grad()
    def _load_average(self, average: Any, source: str) -> None:
        """Replace the parameters by their average, if the checkpoint has one."""
        if not isinstance(average, Mapping):
            return
        parameters = dict(self.named_parameters())
        if any(n not in parameters or parameters[n].shape != value.shape for n, value in average.items()):
            logger.warning("%s: its average of weights belongs to another model and is not used.", source)
            return
        for name, value in average.items():
            parameters[name].copy_(value)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Load `state_dict` strictly; a subclass resolves here the differences that it knows.

        Raises:
            CheckpointError: keys are missing or have another shape; all are named.
        """
        load_strictly(self, state_dict, source)

    def text_collator(self) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        """Return what data-loading workers call on each training batch, or None; it must be picklable.

        Models that read texts have them tokenized there.
        """
        return None

    def inference_settings(self) -> dict[str, Any]:
        """Return the settings of inference that checkpoints store, as plain values."""
        return {}

    def load_inference_settings(self, settings: Mapping[str, Any]) -> None:
        """Use what `inference_settings` returned when the checkpoint was written."""

    def after_step(self) -> None:
        """Update what follows the weights, such as momentum copies; called after each optimizer step."""

    def after_skipped_step(self) -> None:
        """Forget what waits for `after_step`; called instead of it if the step was skipped."""

    def save_pretrained_files(self, folder: Path) -> None:
        """Write what inference needs beside the weights, such as a tokenizer."""

    def freeze_parts(self, names: Iterable[str], unfreeze_last_vision_layers: int = 0) -> None:
        """Freeze parts of the model, except the last blocks of its vision transformer.

        Args:
            names: of the parts.
            unfreeze_last_vision_layers: number of blocks that train after all.

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
            vision: Any = self.visual_encoder
            for part in (*vision.blocks[-unfreeze_last_vision_layers:], vision.norm):
                part.requires_grad_(True)

    def compile_parts(self) -> None:
        """Compile the model with torch.compile; the names of its weights stay."""
        self.compile(dynamic=True)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; fully frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            for part in self.modules():
                parameters = list(part.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    part.eval()
        return self

    def show_n_params(self, return_str: bool = True) -> str | int:
        """Return the number of parameters, as "224.0M" or as an int."""
        total = sum(parameter.numel() for parameter in self.parameters())
        if not return_str:
            return total
        return f"{total / 1e6:.1f}M" if total >= 1e6 else f"{total / 1e3:.1f}K"
