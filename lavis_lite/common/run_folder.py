"""What a run leaves behind, and where: one folder, the same names in every run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite.common.checkpoint import CheckpointStore
from lavis_lite.common.registry import suggest
from lavis_lite.common.schema import ConfigError


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run.

    ==================  =========================================================
    ``config.yaml``     the resolved config
    ``log.jsonl``       one JSON object a line: training, validation
    ``tensorboard/``    the same as TensorBoard events
    ``checkpoints/``    the newest few, and ``checkpoint_best.pth``
    ``tokenizer/``      what the text model reads with
    ``result/``         captions by split and epoch
    ``evaluate.json``   metrics by split, and what they were made with
    ``evaluate_.../``   evaluations with other weights, data or settings
    ``report.html``     all of it to look at
    ==================  =========================================================
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> RunFolder | None:
        """Return the run folder at `path`, or None if it is something else (a file, a URL, weights' folder).

        Raises:
            ConfigError: a folder that says neither by config.yaml nor by config.json what it is.
        """
        folder = Path(path).expanduser()
        if not folder.is_dir() or (folder / "config.json").is_file():
            return None
        if not (folder / "config.yaml").is_file():
            raise ConfigError(
                f"{folder}: is neither the folder of a run (it has no config.yaml) nor one that transformers "
                "wrote (it has no config.json)."
            )
        return cls(folder)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def evaluate_file(self) -> Path:
        return self.path / "evaluate.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def results(self) -> Path:
        return self.path / "result"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def result_file(self, split: str, epoch: int | None = None) -> Path:
        """Return where the captions of a split go."""
        return self.results / (f"{split}.json" if epoch is None else f"{split}_epoch{epoch}.json")

    def config(self) -> dict[str, Any]:
        """Return the resolved config of the run."""
        from omegaconf import OmegaConf

        return OmegaConf.to_container(OmegaConf.load(self.config_file), resolve=True)

    def imports(self) -> list[str]:
        """Return the user's own modules that the run used."""
        return self.config().get("imports") or []

    def model_config(self, expected_arch: str) -> dict[str, Any]:
        """Return the sections ``model`` (arch and type taken out) and ``preprocess`` of the run.

        Raises:
            ConfigError: the run trained another model.
        """
        config = self.config()
        model = dict(config["model"])
        arch = model.pop("arch")
        model.pop("model_type", None)
        if arch != expected_arch:
            raise ConfigError(
                f"{self.path}: this run trained the model {arch!r}, not {expected_arch!r}."
                f"{suggest(expected_arch, [arch])}"
            )
        if (self.path / "tokenizer").is_dir():
            model["tokenizer"] = str(self.path / "tokenizer")
        return {"model": model, "preprocess": config.get("preprocess") or {}}

    def weights(self) -> Path:
        """Return the best checkpoint, or the newest where none is best.

        Raises:
            ConfigError: the run saved none yet.
        """
        store = CheckpointStore(self.checkpoints)
        if store.best.is_file():
            return store.best
        if store.steps():
            return store.steps()[0]
        raise ConfigError(f"{self.path}: this run has saved no checkpoint yet.")
