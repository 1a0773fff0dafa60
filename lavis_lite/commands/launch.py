"""Training and evaluation from a config file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint import CheckpointStore
from lavis_lite.common.config import ResolvedConfig, load_config
from lavis_lite.common.logging import setup_logging
from lavis_lite.common.random import seed_everything
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.schema import ConfigError

logger = logging.getLogger(__name__)


def launch(cfg_path: str, options: Sequence[str], imports: Sequence[str], evaluate_only: bool) -> RunFolder:
    """Run a config: train and test, or only test. Return the folder with everything that came of it.

    Raises:
        ConfigError: anything wrong with the config, before any work.
        StoppedError: a signal asked to stop; the same command goes on.
    """
    config = load_config(cfg_path, options, imports)
    evaluate_only = evaluate_only or config.run.evaluate
    task = registry.get_task_class(config.run.task)(config.run)
    task.check()
    device = distributed.pick_device(config.run.device)
    distributed.start(device.type)
    try:
        folder = _run_folder(config, evaluate_only)
        setup_logging(distributed.rank(), folder.path)
        if config.run.device == "cuda" and device.type != "cuda":
            logger.warning("run.device is cuda but there is no GPU here: running on the CPU.")
        _run(config, task, folder, device, evaluate_only)
    finally:
        distributed.stop()
    return folder


def _run(config: ResolvedConfig, task: Any, folder: RunFolder, device: Any, evaluate_only: bool) -> None:
    """Build data, model and runner, in that order, and let the runner work."""
    run = config.run
    seed_everything(run.seed)
    splits = run.test_splits if evaluate_only else [*run.train_splits, *run.valid_splits, *run.test_splits]
    datasets = build_datasets(config, splits)
    model = registry.get_model_class(config.arch).from_config(config.model)
    task.prepare(model)
    logger.info("%s: %s parameters, on %s.", config.arch, model.show_n_params(), device)
    if distributed.is_main():
        config.save(folder.config_file)
        model.save_pretrained_files(folder.path)
    runner_class = registry.get_runner_class(run.runner)
    runner = runner_class(run, task, model, datasets, folder, config.sections, device)
    if evaluate_only:
        runner.evaluate_best(run.test_splits)
    else:
        runner.train()
        if runner.is_complete():
            logger.info("This run is complete: %s.", folder.evaluate_file)
        elif run.test_splits:
            runner.evaluate_best(run.test_splits)
    runner.log.close()
    if distributed.is_main() and run.report:
        from lavis_lite.report.run_report import write_run_report

        logger.info("Report: %s", write_run_report(folder.path))


def build_datasets(config: ResolvedConfig, splits: Sequence[str]) -> dict[str, list[Dataset]]:
    """Return, for each split, the data sets that have it. Rank 0 builds first, so that it downloads alone.

    Raises:
        ConfigError: a split that no data set has.
    """
    if not distributed.is_main():
        distributed.barrier()
    datasets: dict[str, list[Dataset]] = {split: [] for split in splits}
    known: set[str] = set()
    for name, settings in config.datasets.items():
        builder = registry.get_builder_class(name).from_config(settings or {})
        known.update(builder.splits())
        for split in dict.fromkeys(splits):
            if split in builder.splits():
                dataset = builder.build(split)
                dataset.name = name
                if split in config.run.train_splits:
                    _refuse_missing(dataset, config.run.max_bad_fraction)
                datasets[split].append(dataset)
    if distributed.is_main():
        distributed.barrier()
    for split, found in datasets.items():
        if not found:
            raise ConfigError(
                f"{config.source}: no data set has the split {split!r}, only {', '.join(sorted(known))}. "
                "Change run.train_splits, run.valid_splits or run.test_splits."
            )
        logger.info("%s: %d samples.", split, sum(len(dataset) for dataset in found))
    return datasets


def _refuse_missing(dataset: Dataset, max_bad_fraction: float) -> None:
    """Refuse a data set to train on that would stop the run once its samples are drawn."""
    missing = dataset.samples_without_file() if hasattr(dataset, "samples_without_file") else 0
    if missing > max_bad_fraction * len(dataset):
        raise ConfigError(
            f"datasets.{dataset.name}: {missing} of {len(dataset)} training samples have no file, more than "
            f"run.max_bad_fraction ({max_bad_fraction:.1%}) allows; the first is "
            f"{dataset.missing_images[0]!r}. `lavis-lite datasets check {dataset.name}` lists them."
        )


def _run_folder(config: ResolvedConfig, evaluate_only: bool) -> RunFolder:
    """Return the folder of this run, checked against what an earlier run may have left there.

    Raises:
        ConfigError: it holds a run of another model, or any run where `resume` is "never".
    """
    output_dir = config.run.output_dir
    if output_dir is None:
        output_dir = str(distributed.broadcast_object(_new_folder(Path("output") / Path(config.source).stem)))
        config.run = replace(config.run, output_dir=output_dir)
        config.sections["run"]["output_dir"] = output_dir
    folder = RunFolder(Path(output_dir).expanduser())
    if evaluate_only or not folder.config_file.is_file() or not CheckpointStore(folder.checkpoints).steps():
        return folder
    if config.run.resume == "never":
        raise ConfigError(
            f"run.output_dir: {folder.path} already holds a run, and run.resume is never. Choose another "
            "output_dir, or set run.resume=auto to go on with that run."
        )
    for key in ("model", "datasets"):
        before, now = folder.config().get(key), config.sections[key]
        if before != now:
            raise ConfigError(
                f"run.output_dir: {folder.path} holds a run with another {key} section "
                f"({_difference(before, now, key)}). Choose another output_dir to start a new run."
            )
    return folder


def _new_folder(parent: Path) -> Path:
    """Return a folder named by the time; processes that were started again find the one they had."""
    launched = distributed.launch_id()
    if launched is None:
        return parent / datetime.now().strftime("%Y%m%d_%H%M%S")
    earlier = sorted(parent.glob(f"*_{launched}")) if distributed.restarted() else []
    return earlier[-1] if earlier else parent / f"{datetime.now():%Y%m%d_%H%M%S}_{launched}"


def _difference(before: Any, now: Any, path: str) -> str:
    """Say where two settings differ first."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{path}.{key}")
    return f"{path} was {before!r} and is now {now!r}"


def print_table(folder: RunFolder) -> None:
    """Print the metrics of a run's test splits."""
    if not folder.evaluate_file.is_file():
        return
    metrics = json.loads(folder.evaluate_file.read_text(encoding="utf-8"))
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    numbers = [name for name in names if any(isinstance(v.get(name), int | float) for v in metrics.values())]
    width = max([len(name) for name in numbers], default=0)
    print(f"\n{'metric':<{width}}  " + "  ".join(f"{split:>8}" for split in metrics))
    for name in numbers:
        cells = [values.get(name) for values in metrics.values()]
        print(
            f"{name:<{width}}  "
            + "  ".join(f"{cell:8.4f}" if isinstance(cell, int | float) else " " * 8 for cell in cells)
        )
    for split, values in metrics.items():
        for metric, reason in (values.get("unavailable") or {}).items():
            print(f"{split}: no {metric}: {reason}")
        if values.get("samples_without_image"):
            print(f"{split}: {len(values['samples_without_image'])} samples had no readable image.")
    print(f"\n{folder.path}")
