"""Training and evaluation from a config file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.commands.run_folders import (
    refuse_folder_of_other_results,
    saved_run,
    take_evaluation_folder,
    take_folder,
    was_trained,
)
from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.layering import ResolvedConfig, is_set, load_config
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.setup import setup_logging
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.seeding import seed_everything
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.resuming import find_resume_point
from lavis_lite.runners.testing import describe_evaluation, test_best, test_weights

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
    """Run a config: train and test, or only test. Return the folder with everything that came of it.

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
        _put_output_dir(config, str(saved.path))  # where the folder lies now
    evaluate_only = evaluate_only or config.run.evaluate
    task = registry.get_task_class(config.run.task)(config.run)
    task.check()
    device = distributed.pick_device(config.run.device)
    distributed.start(device.type)
    try:
        setup_logging(distributed.rank())
        if config.run.device == "cuda" and device.type != "cuda":
            logger.warning("run.device is cuda but there is no GPU here: running on the CPU.")
        folder = _output_folder(config)
        if evaluate_only:
            trained_here = _take_trained_weights(config, saved, folder, options)
            return _evaluate(config, task, device, folder, trained_here)
        return _train(config, task, device, folder)
    finally:
        distributed.stop()


def _with_named_weights(options: Sequence[str]) -> list[str]:
    """Return `options`, in which the weights that are named are the ones that are loaded."""
    named = {key for key in WEIGHT_KEYS if is_set(options, f"model.{key}")}
    switches = {}
    if "finetuned" in named:
        switches["load_finetuned"] = "true"
    elif "pretrained" in named:
        switches.update(load_finetuned="false", load_pretrained="true")
    return [*options, *(f"model.{key}={value}" for key, value in switches.items() if key not in named)]


def _train(config: ResolvedConfig, task: Any, device: Any, folder: RunFolder) -> RunFolder:
    """Train, from where the run in the folder stands, and test the best weights."""
    run = config.run
    lock = take_folder(folder)
    try:
        _refuse_to_resume(run, folder)
        refuse_folder_of_other_results(folder)
        setup_logging(distributed.rank(), folder.path)
        store = CheckpointStore(folder.checkpoints, keep=run.save_total_limit)
        point = find_resume_point(store, run.resume_ckpt_path, config.sections)
        datasets, model = _build(
            config, task, device, (*run.train_splits, *run.valid_splits, *run.test_splits)
        )
        runner = _runner(config, task, model, datasets, folder, device)
        runner.prepare(point)
        del point  # with the weights in it
        _save_config(config, model, folder)
        runner.train()
        if run.test_splits:
            test_best(runner)
        runner.log.close()
        _write_report(run, folder)
    finally:
        if lock is not None:
            lock.release()
    return folder


def _evaluate(
    config: ResolvedConfig, task: Any, device: Any, folder: RunFolder, trained_here: bool
) -> RunFolder:
    """Test the weights that the config names, and return where the results are.

    Args:
        config: its model section names the weights.
        task: what to evaluate.
        device: what to run on.
        folder: ``run.output_dir``.
        trained_here: whether the weights are those of the run in `folder`.
    """
    run = config.run
    datasets, model = _build(config, task, device, run.test_splits)
    precision = Precision(run.amp, device)
    made_with = describe_evaluation(
        run, config.sections, model, datasets, precision, step=model.trained_steps
    )
    folder, lock = take_evaluation_folder(folder, made_with, own_weights=trained_here)
    try:
        setup_logging(distributed.rank(), folder.path)
        if not was_trained(folder):
            config.sections["run"].update(evaluate=True, output_dir=str(folder.path))
            _save_config(config, model, folder)
        runner = _runner(config, task, model, datasets, folder, device)
        runner.state.step = model.trained_steps or 0
        test_weights(runner, made_with)
        runner.log.close()
        _write_report(run, folder)
    finally:
        if lock is not None:
            lock.release()
    return folder


def _build(
    config: ResolvedConfig, task: Any, device: Any, splits: Sequence[str]
) -> tuple[dict[str, list[Dataset]], Any]:
    """Build the data sets and the model, in that order."""
    seed_everything(config.run.seed)
    datasets = build_datasets(config, splits)
    model = registry.get_model_class(config.arch).from_config(config.model)
    task.prepare(model)
    logger.info("%s: %s parameters, on %s.", config.arch, model.show_n_params(), device)
    return datasets, model


def _runner(
    config: ResolvedConfig, task: Any, model: Any, datasets: Mapping[str, Any], folder: RunFolder, device: Any
) -> Any:
    runner_class = registry.get_runner_class(config.run.runner)
    return runner_class(config.run, task, model, datasets, folder, config.sections, device)


def _save_config(config: ResolvedConfig, model: Any, folder: RunFolder) -> None:
    """Write the settings that are now used, and what the weights need beside them."""
    if distributed.is_rank_zero():
        config.save(folder.config_file)
        model.save_pretrained_files(folder.path)


def _write_report(run: RunConfig, folder: RunFolder) -> None:
    if distributed.is_rank_zero() and run.report:
        from lavis_lite.report.run_report import write_run_report

        logger.info("Report: %s", write_run_report(folder.path))


def build_datasets(config: ResolvedConfig, splits: Sequence[str]) -> dict[str, list[Dataset]]:
    """Return, for each split, the data sets that have it. Rank 0 builds first, so that it downloads alone.

    Raises:
        ConfigError: a split that no data set has.
    """
    if not distributed.is_rank_zero():
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
    if distributed.is_rank_zero():
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


def _output_folder(config: ResolvedConfig) -> RunFolder:
    """Return the folder of this run; where the config names none, a new one, the same on all ranks."""
    output_dir = config.run.output_dir
    if output_dir is None:
        folder = _new_folder(Path("output") / Path(config.source).stem)
        output_dir = str(distributed.broadcast_object(folder))
        _put_output_dir(config, output_dir)
    return RunFolder(Path(output_dir).expanduser())


def _put_output_dir(config: ResolvedConfig, output_dir: str) -> None:
    config.run = replace(config.run, output_dir=output_dir)
    config.sections["run"]["output_dir"] = output_dir


def _refuse_to_resume(run: RunConfig, folder: RunFolder) -> None:
    """Refuse a folder that holds a run where `resume` is "never".

    Raises:
        ConfigError: it does. A launcher's restart of the same run may continue.
    """
    if run.resume == "never" and CheckpointStore(folder.checkpoints).steps() and not distributed.restarted():
        raise ConfigError(
            f"run.output_dir: {folder.path} already holds a run, and run.resume is never. Choose another "
            "output_dir, or set run.resume=auto to continue that run."
        )


def _take_trained_weights(
    config: ResolvedConfig, saved: RunFolder | None, output: RunFolder, options: Sequence[str]
) -> bool:
    """Let an evaluation test what a run has trained; return whether that is the run in `output`.

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
    config.sections["model"].update(finetuned=file, load_finetuned=True)
    logger.info("Testing %s.", file)
    return run.path.resolve() == output.path.resolve()


def _new_folder(parent: Path) -> Path:
    """Return a folder named by the time; processes that were started again find the one they had."""
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
    if made_with:
        step = "unknown" if made_with.get("step") is None else made_with["step"]
        print(f"\nweights {made_with.get('weights')}, step {step}, seed {made_with.get('seed')}")
    print(f"\n{folder.path}")
