"""The output folder of a run: the same file names in every run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite.common.checkpoint.formats import other_folder
from lavis_lite.common.checkpoint.store import CheckpointError, CheckpointStore, load_file
from lavis_lite.common.config.saved import check_saved_config, read_saved_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.config.user_modules import import_saved_modules, missing_files
from lavis_lite.common.files import FileError
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.results import read_results

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run.

    ==================  =========================================================
    ``config.yaml``     the resolved config
    ``log.jsonl``       one JSON object a line: training, validation
    ``tensorboard/``    the same as TensorBoard events
    ``checkpoints/``    the newest few, and ``checkpoint_best.pth``
    ``tokenizer/``      the tokenizer of the text model
    ``result/``         captions by split and epoch
    ``evaluate.json``   metrics by split, and what they were made with
    ``evaluate_.../``   evaluations with other weights, data or settings
    ``report.html``     a report of all of it
    ==================  =========================================================
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> RunFolder | None:
        """Return the run folder at `path`, or None for a file, a URL, or a folder of transformers.

        Raises:
            ConfigError: a folder without config.yaml or config.json, or one that another program wrote.
        """
        try:
            folder = Path(path).expanduser()
            if not folder.is_dir():
                return None
        except (OSError, RuntimeError, ValueError):  # too long for a path, or a user without a home
            return None
        if (folder / "config.json").is_file():
            return None
        if (folder / "config.yaml").is_file():
            return cls(folder)
        name = other_folder(folder)
        if name is not None:
            raise ConfigError(f"{folder}: {name}; it cannot be read here.")
        if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file():
            raise ConfigError(
                f"{folder}: holds the checkpoints of a run; name the run folder {folder.parent}, or one file."
            )
        raise ConfigError(
            f"{folder}: is neither the folder of a run (it has no config.yaml) nor one that transformers "
            "wrote (it has no config.json)."
        )

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
        """Return the path of the result file of a split."""
        return self.results / (f"{split}.json" if epoch is None else f"{split}_epoch{epoch}.json")

    def config(self) -> dict[str, Any]:
        """Return the resolved config of the run, as plain values.

        If config.yaml is damaged, the copy in a checkpoint is returned, with a warning.

        Raises:
            ConfigError: neither can be read.
        """
        try:
            return read_saved_config(self.config_file)
        except ConfigError as error:
            copy = self._config_in_checkpoint()
            if copy is None:
                raise
            logger.warning("%s A copy of it in %s is used.", error, copy[0])
            return copy[1]

    def _config_in_checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        store = CheckpointStore(self.checkpoints)
        for path in (*store.steps(), store.best):
            try:
                content = load_file(path)
                config = content.get("config") if isinstance(content, dict) else None
                return path, check_saved_config(config, str(path))
            except (CheckpointError, ConfigError):
                continue
        return None

    def arch(self) -> tuple[str, str | None]:
        """Return the registered name and the type of the model that the run trained."""
        model = self.config()["model"]
        return model["arch"], model.get("model_type")

    def import_modules(self, trust_imports: bool = False) -> None:
        """Import the user's own modules that the run names, where its model or processors need them.

        Args:
            trust_imports: import all of them, which runs their code. Otherwise those that are needed must
                be imported already.

        Raises:
            ConfigError: modules that are needed but neither imported nor trusted, or a model that none
                registers.
        """
        config = self.config()
        names, arch = config.get("imports") or [], config["model"]["arch"]
        used = {"model": config["model"], "preprocess": config.get("preprocess")}
        import_saved_modules(names, self.path, trust_imports, used)
        if arch not in registry.list_models():
            absent = missing_files(names, self.path)
            raise ConfigError(
                f"{self.path}: this run trained the model {arch!r}, which no imported module registers"
                + (f", and {', '.join(absent)}, which its config imports, does not exist" if absent else "")
                + ". Import the module that defines it first (in Python, or with --import)."
            )

    def model_config(self, expected_arch: str) -> dict[str, Any]:
        """Return the sections ``model`` (arch and type taken out) and ``preprocess`` of the run.

        Raises:
            ConfigError: the run trained another model, or its config is damaged.
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
        preprocess = config.get("preprocess") or {}
        for key, splits in preprocess.items() if isinstance(preprocess, dict) else [("", preprocess)]:
            if not isinstance(splits, dict) or not all(
                v is None or isinstance(v, dict) for v in splits.values()
            ):
                raise ConfigError(f"{self.config_file}: the file is damaged: preprocess.{key} is no mapping.")
        if (self.path / "tokenizer").is_dir():
            model["tokenizer"] = str(self.path / "tokenizer")
        return {"model": model, "preprocess": preprocess}

    def test_results(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]] | None:
        """Return the metrics by split and what they were made with (see `read_results`), or None.

        A damaged file counts as missing, with a warning.
        """
        if not self.evaluate_file.exists():
            return None
        try:
            return read_results(self.evaluate_file)
        except FileError as error:
            logger.warning("%s The run counts as not tested.", error)
            return None

    def weights(self) -> Path:
        """Return the best checkpoint, or the newest if there is no best one.

        Raises:
            ConfigError: the run has saved none yet.
        """
        store = CheckpointStore(self.checkpoints)
        if store.best.is_file():
            return store.best
        if store.steps():
            return store.steps()[0]
        damaged = sorted(self.checkpoints.glob("*.damaged"))
        raise ConfigError(
            f"{self.path}: this run has saved no checkpoint yet"
            + (f" but {damaged[-1].name}, which is damaged." if damaged else ".")
        )
