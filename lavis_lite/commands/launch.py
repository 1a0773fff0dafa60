"""Training and evaluation from a config file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lavis_lite.commands.run_folders import (
    locked_evaluation_folder,
    locked_folder,
    refuse_to_train_into,
    saved_run,
    was_trained,
)
from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.layering import ResolvedConfig, is_set, load_config
from lavis_lite.common.config.saved import write_saved_config
from lavis_lite.common.config.schema import ConfigError, to_plain
from lavis_lite.common.logs.setup import setup_logging
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.seeding import seed_everything
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.models.base_model import BaseModel
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.resuming import find_resume_point
from lavis_lite.runners.runner_base import RunnerBase
from lavis_lite.runners.testing import describe_evaluation, test_best, test_weights
from lavis_lite.tasks.base_task import BaseTask

logger = logging.getLogger(__name__)

# Settings of the model that say which weights to load.
WEIGHT_KEYS = ("finetuned", "load_finetuned", "pretrained", "load_pretrained")


def launch(
    cfg_path: str,
    options: Sequence[str],
    imports: Sequence[str],
    evaluate_only: bool,
    trust_imports: bool = False,
) -> RunFolder:
    """Run a config: train and test, or only test. Return the folder with the results.

    Args:
        cfg_path: a run file, or a run folder, which stands for the config.yaml in it.
        options: overrides as ``key=value``.
        imports: the caller's own modules.
        evaluate_only: test and do not train.
        trust_imports: import the modules that the config.yaml of a run folder names.

    Raises:
        ConfigError: anything wrong with the config or the folder, before any work.
        StoppedError: a signal asked to stop; the same command continues.
    """
    saved = saved_run(cfg_path)
    source = cfg_path if saved is None else saved.config_file
    config = load_config(source, _with_named_weights(options), imports, trust_imports)
    if saved is not None and not is_set(options, "run.output_dir"):
        config.run = replace(config.run, output_dir=str(saved.path))  # the folder may have been moved
    device = distributed.pick_device(config.run.device)
    distributed.start(device.type)
    try:
        setup_logging(distributed.rank())
        if config.run.device == "cuda" and device.type != "cuda":
            logger.warning("run.device is cuda but there is no GPU here: running on the CPU.")
        if config.run.output_dir is None:
            new = _new_folder(Path("output") / Path(config.source).stem)
            config.run = replace(config.run, output_dir=str(distributed.broadcast_object(new)))
        folder = RunFolder(Path(str(config.run.output_dir)).expanduser())
        task = registry.get_task_class(config.run.task)(config.run)
        task.check()
        if not (evaluate_only or config.run.evaluate):
            return _train(config, task, device, folder)
        own_weights = _use_trained_weights(config, saved, folder, options)
        return _evaluate(config, task, device, folder, own_weights)
    finally:
        distributed.stop()


def _with_named_weights(options: Sequence[str]) -> list[str]:
    """Return `options` plus the switches that make the weights they name the ones that are loaded."""
    named = {key for key in WEIGHT_KEYS if is_set(options, f"model.{key}")}
    switches = {}
    if "finetuned" in named:
        switches["load_finetuned"] = "true"
    elif "pretrained" in named:
        switches.update(load_finetuned="false", load_pretrained="true")
    return [*options, *(f"model.{key}={value}" for key, value in switches.items() if key not in named)]


def _train(config: ResolvedConfig, task: BaseTask, device: torch.device, folder: RunFolder) -> RunFolder:
    """Train, continuing the run in the folder if there is one, and test the best weights."""
    run, sections = config.run, config.sections
    with locked_folder(folder):
        refuse_to_train_into(folder, run)
        setup_logging(distributed.rank(), folder.path)
        store = CheckpointStore(folder.checkpoints, keep=run.save_total_limit)
        point = find_resume_point(store, run.resume_ckpt_path, sections)
        splits = (*run.train_splits, *run.valid_splits, *run.test_splits)
        datasets, model = _build(config, task, device, splits)
        runner = registry.get_runner_class(run.runner)(run, task, model, datasets, folder, sections, device)
        runner.prepare(point)
        del point  # frees the weights in it
        _save_config(sections, model, folder)
        runner.train()
        if run.test_splits:
            test_best(runner)
        _finish(runner)
    return folder


def _evaluate(
    config: ResolvedConfig, task: BaseTask, device: torch.device, folder: RunFolder, own_weights: bool
) -> RunFolder:
    """Test the weights that the config names, and return the folder with the results.

    Args:
        config: its model section names the weights.
        task: what to evaluate.
        device: what to run on.
        folder: ``run.output_dir``.
        own_weights: whether the weights were saved by the run in `folder`.
    """
    run, sections = config.run, config.sections
    datasets, model = _build(config, task, device, run.test_splits)
    step = model.trained_steps
    made_with = describe_evaluation(run, sections, model, datasets, Precision(run.amp, device), step=step)
    with locked_evaluation_folder(folder, made_with, own_weights) as results_folder:
        setup_logging(distributed.rank(), results_folder.path)
        if not was_trained(results_folder):
            sections["run"].update(evaluate=True, output_dir=str(results_folder.path))
            _save_config(sections, model, results_folder)
        runner = registry.get_runner_class(run.runner)(
            run, task, model, datasets, results_folder, sections, device
        )
        runner.state.step = step or 0
        test_weights(runner, made_with)
        _finish(runner)
    return results_folder


def _build(
    config: ResolvedConfig, task: BaseTask, device: torch.device, splits: Sequence[str]
) -> tuple[dict[str, list[Any]], BaseModel]:
    """Build the data sets and the model, in that order."""
    seed_everything(config.run.seed)
    datasets = build_datasets(config, splits)
    model_class = registry.get_model_class(config.arch)
    model = model_class.from_config(_form_for(model_class, BaseModel, config.model))
    task.prepare(model)
    logger.info("%s: %s parameters, on %s.", config.arch, model.show_n_params(), device)
    return datasets, model


def _form_for(part: type, base: type, config: Any) -> Any:
    """Return `config` as the `from_config` of `part` reads it: one that a plug-in wrote reads a mapping."""
    # `type` has no from_config: both bases of parts, models and data set builders, have one.
    inherited = part.from_config.__func__ is base.from_config.__func__  # type: ignore[attr-defined]
    return config if inherited else to_plain(config)


def _save_config(sections: Mapping[str, Any], model: BaseModel, folder: RunFolder) -> None:
    """Write config.yaml, and the files that the weights need beside them."""
    if distributed.is_rank_zero():
        write_saved_config(sections, folder.config_file)
        model.save_pretrained_files(folder.path)


def _finish(runner: RunnerBase) -> None:
    runner.log.close()
    if distributed.is_rank_zero() and runner.config.report:
        from lavis_lite.report.run_report import write_run_report

        logger.info("Report: %s", write_run_report(runner.folder.path))


def build_datasets(config: ResolvedConfig, splits: Sequence[str]) -> dict[str, list[Any]]:
    """Return, for each split, the data sets that have it. Rank 0 builds first, so that it alone downloads.

    Raises:
        ConfigError: a split that no data set has.
    """
    if not distributed.is_rank_zero():
        distributed.barrier()
    datasets: dict[str, list[Any]] = {split: [] for split in splits}
    known: set[str] = set()
    for name, settings in config.datasets.items():
        builder_class = registry.get_builder_class(name)
        builder = builder_class.from_config(_form_for(builder_class, BaseDatasetBuilder, settings))
        known.update(builder.splits())
        for split in datasets:
            if split in builder.splits():
                dataset: Any = builder.build(split)
                dataset.name = name
                if split in config.run.train_splits:
                    _refuse_missing(dataset, config.run.max_bad_fraction)
                datasets[split].append(dataset)
    if distributed.is_rank_zero():
        distributed.barrier()
    for split, parts in datasets.items():
        if not parts:
            raise ConfigError(
                f"{config.source}: no data set has the split {split!r}, only {', '.join(sorted(known))}. "
                "Change run.train_splits, run.valid_splits or run.test_splits."
            )
        logger.info("%s: %d samples.", split, sum(len(dataset) for dataset in parts))
    return datasets


def _refuse_missing(dataset: Any, max_bad_fraction: float) -> None:
    """Refuse a training set whose missing files would stop the run once they are drawn."""
    missing = dataset.samples_without_file() if hasattr(dataset, "samples_without_file") else 0
    if missing > max_bad_fraction * len(dataset):
        raise ConfigError(
            f"datasets.{dataset.name}: {missing} of {len(dataset)} training samples have no file, more than "
            f"run.max_bad_fraction ({max_bad_fraction:.1%}) allows; the first is "
            f"{dataset.missing_images[0]!r}. `lavis-lite datasets check {dataset.name}` lists them."
        )


def _use_trained_weights(
    config: ResolvedConfig, saved: RunFolder | None, output: RunFolder, options: Sequence[str]
) -> bool:
    """Make `config` load the weights of a run that is to be tested; return whether it is the one in `output`.

    The run is the one whose config is used, `saved`, or else the one in `output`. Its best checkpoint
    is tested, or else its newest, unless `options` name weights.

    Raises:
        ConfigError: the run has saved no weights yet.
    """
    if any(is_set(options, f"model.{key}") for key in WEIGHT_KEYS):
        return False
    run = next((folder for folder in (saved, output) if folder is not None and was_trained(folder)), None)
    if run is None:
        if saved is not None and not config.run.evaluate:
            raise ConfigError(
                f"{saved.path}: this run has saved no checkpoint yet. To test other weights, name them with "
                "--options model.finetuned=FILE."
            )
        return False
    file = distributed.broadcast_object(str(run.weights()))
    config.model = replace(config.model, finetuned=file, load_finetuned=True)
    logger.info("Testing %s.", file)
    return run.path.resolve() == output.path.resolve()


def _new_folder(parent: Path) -> Path:
    """Return a folder named by the time; restarted processes get the folder of their first start."""
    launched = distributed.launch_id()
    if launched is None:
        return parent / datetime.now().strftime("%Y%m%d_%H%M%S")
    earlier = sorted(parent.glob(f"*_{launched}")) if distributed.restarted() else []
    return earlier[-1] if earlier else parent / f"{datetime.now():%Y%m%d_%H%M%S}_{launched}"


def print_table(folder: RunFolder) -> None:
    """Print the metrics of a run's test splits."""
    results = folder.test_results()
    if results is None:
        return
    metrics, made_with = results
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    numbers = [name for name in names if any(isinstance(v.get(name), int | float) for v in metrics.values())]
    width = max([len(name) for name in numbers], default=0)
    print(f"\n{'metric':<{width}}  " + "  ".join(f"{split:>8}" for split in metrics))
    for name in numbers:
        values = [metrics[split].get(name) for split in metrics]
        cells = [f"{value:8.4f}" if isinstance(value, int | float) else " " * 8 for value in values]
        print(f"{name:<{width}}  " + "  ".join(cells))
    for split, of_split in metrics.items():
        for metric, reason in (of_split.get("unavailable") or {}).items():
            print(f"{split}: no {metric}: {reason}")
        if of_split.get("samples_without_image"):
            print(f"{split}: {len(of_split['samples_without_image'])} samples had no readable image.")
    if made_with:
        step = "unknown" if made_with.get("step") is None else made_with["step"]
        print(f"\nweights {made_with.get('weights')}, step {step}, seed {made_with.get('seed')}")
    print(f"\n{folder.path}")
