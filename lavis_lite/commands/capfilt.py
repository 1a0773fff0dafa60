"""Cleaning a crawl: synthetic captions, and a filter over them and the web's."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MODEL_HELP = "run folder, weights file, URL or hub name"


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite capfilt run``, ``refilter``, ``status`` and ``judge``."""
    parser = commands.add_parser(
        "capfilt", help="caption and filter tar shards of a crawl", allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="run|refilter|status|judge")
    run = kinds.add_parser("run", help="caption and filter; the same command goes on", allow_abbrev=False)
    run.add_argument("shards", nargs="+", help="tar files: paths with * and {000..127}, addresses, folders")
    run.add_argument("--output", "-o", required=True, help="folder for the cleaned shards and the scores")
    run.add_argument("--captioner", help=MODEL_HELP)
    run.add_argument("--captioner-name", default="blip_caption", help="model, without a run folder")
    run.add_argument("--captioner-type", default="base_coco", help="its type, likewise")
    run.add_argument("--filter", help=MODEL_HELP)
    run.add_argument("--filter-name", default="blip_image_text_matching", help="model, without a run folder")
    run.add_argument("--filter-type", default="base", help="its type, likewise")
    run.add_argument(
        "--text-key", default="txt", help="where the web's text stands: txt, or a field of the json"
    )
    run.add_argument("--allow-pipe", action="store_true", help="let shards be commands (pipe:...)")
    run.add_argument("--device", default="auto")
    run.set_defaults(execute=_execute_run)
    refilter = kinds.add_parser("refilter", help="decide anew from the scores", allow_abbrev=False)
    refilter.add_argument("folder", help="output folder of a run")
    refilter.add_argument("--output", "-o", required=True, help="json file for the kept pairs")
    refilter.add_argument("--threshold", type=float)
    refilter.set_defaults(execute=_execute_refilter)
    for command in (run, refilter):
        command.add_argument(
            "--options", nargs="+", default=[], metavar="KEY=VALUE", help="rule=itc threshold=0.3 ..."
        )
    judge = kinds.add_parser("judge", help="compare with the truth of shapes_web", allow_abbrev=False)
    judge.add_argument("folder", help="output folder of a run")
    judge.add_argument("--truth", required=True, help="folder of the drawn shards")
    judge.set_defaults(execute=_execute_judge)
    status = kinds.add_parser("status", help="print what is done", allow_abbrev=False)
    status.add_argument("folder", help="output folder of a run")
    status.set_defaults(execute=_execute_status)


def _execute_run(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.settings import CapFiltSettings

    settings = _settings(CapFiltSettings, options.options)
    output, failed = run_capfilt(
        options.shards,
        options.output,
        settings,
        captioner=(options.captioner_name, options.captioner_type, options.captioner),
        scorer=(options.filter_name, options.filter_type, options.filter),
        text_key=options.text_key,
        allow_pipe=options.allow_pipe,
        device=options.device,
    )
    _print_status(output.folder)
    for name in failed:
        print(f"{name}: could not be done: {(output.folder / 'failed' / f'{name}.txt').read_text().strip()}")
    return 1 if failed else 0


def _execute_refilter(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from lavis_lite.capfilt.refilter import refilter, settings_of
    from lavis_lite.capfilt.settings import SelectionSettings

    names = {field.name for field in fields(SelectionSettings)}
    held = {key: value for key, value in settings_of(options.folder)["settings"].items() if key in names}
    over = list(options.options)
    if options.threshold is not None:
        over.append(f"threshold={options.threshold}")
    counts = refilter(options.folder, _settings(SelectionSettings, over, held), options.output)
    print(f"{counts['kept']} of {counts['texts']} texts kept: {options.output}")
    return 0


def _execute_judge(options: argparse.Namespace) -> int:
    from pyarrow import parquet

    from lavis_lite.datasets.shapes.judge import judge
    from lavis_lite.datasets.shapes.write_web import read_truth

    tables = sorted((Path(options.folder) / "scores").glob("*.parquet"))
    rows = [row for table in tables for row in parquet.read_table(table).to_pylist()]
    figures = judge(rows, read_truth(Path(options.truth)))
    names = list(next(iter(figures.values()), {}))
    width = max(map(len, names), default=0)
    print(f"{'':<{width}}  " + "  ".join(f"{source:>9}" for source in figures))
    for name in names:
        print(f"{name:<{width}}  " + "  ".join(f"{own[name]:9.3f}" for own in figures.values()))
    return 0


def _execute_status(options: argparse.Namespace) -> int:
    _print_status(Path(options.folder).expanduser())
    return 0


def _print_status(folder: Path) -> None:
    markers = [json.loads(file.read_text()) for file in sorted((folder / "done").glob("*.json"))]
    failed = len(list((folder / "failed").glob("*.txt")))
    sums = {key: sum(m[key] for m in markers) for key in ("samples", "kept", "filtered", "failed")}
    print(
        f"{len(markers)} shards done, {failed} set aside, {sum(bool(m['damage']) for m in markers)} damaged"
    )
    print(", ".join(f"{count} {key}" for key, count in sums.items()))


def _settings(settings_class: type, options: Sequence[str], held: dict[str, Any] | None = None) -> Any:
    from omegaconf import OmegaConf

    from lavis_lite.common.schema import parse

    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)), resolve=True)
    return parse(settings_class, {**(held or {}), **given}, where="capfilt")


def run_capfilt(
    patterns: Sequence[str],
    folder: str | Path,
    settings: Any,
    *,
    captioner: tuple[str, str, str | None],
    scorer: tuple[str, str, str | None],
    text_key: str = "txt",
    allow_pipe: bool = False,
    device: str = "auto",
) -> tuple[Any, list[str]]:
    """Caption and filter shards; return the output folder and the names of the shards that failed.

    Any number of processes may run this with one folder; each takes the shards that nobody has.

    Args:
        captioner, scorer: name, type and checkpoint of the models.

    Raises:
        ConfigError: shards that are not there.
        CapFiltError: the folder was begun with other settings, models or shards.
    """
    from lavis_lite.capfilt.output import OutputFolder
    from lavis_lite.capfilt.work import run_shards
    from lavis_lite.common import distributed
    from lavis_lite.common.logging import setup_logging
    from lavis_lite.common.progress import Progress
    from lavis_lite.common.schema import ConfigError
    from lavis_lite.datasets.web.shards import list_shards

    setup_logging()
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("capfilt writes its scores as parquet: pip install lavis-lite[parquet].")
    shards = list_shards(patterns, allow_pipe)
    picked = distributed.pick_device(device)
    models, weights = load_models(captioner, scorer, settings, text_key, picked)
    identity = {"settings": settings.identity(), "text_key": text_key, "models": weights}
    output = OutputFolder(folder, {**identity, "shards": [shard.name for shard in shards]})
    work = _work(shards)
    # each process begins elsewhere, so that they meet late
    start = int(os.environ.get("RANK", 0)) * len(work) // max(1, int(os.environ.get("WORLD_SIZE", 1)))
    with Progress(len(work), "capfilt") as progress:
        failed = run_shards([*work[start:], *work[:start]], models, settings, output, progress)
    if all(output.is_done(shard.name) for shard in work):
        _finish(output)
    return output, failed


def _finish(output: Any) -> None:
    from filelock import FileLock

    with FileLock(output.folder / "done" / ".finish.lock"):
        output.finish()


def _work(shards: Sequence[Any]) -> list[Any]:
    from lavis_lite.capfilt.output import Sample
    from lavis_lite.capfilt.work import Shard, shard_names
    from lavis_lite.datasets.web.shards import raw_samples

    def reader(shard: Any) -> Callable[[Callable[[str], None]], Iterator[Sample]]:
        def read(on_damage: Callable[[str], None]) -> Iterator[Sample]:
            for raw in raw_samples(shard, on_damage):
                members = {key: value for key, value in raw.items() if not key.startswith("__")}
                yield Sample(raw["__key__"], members, _json(members.get("json")))

        return read

    names = shard_names([shard.name for shard in shards])
    return [Shard(name, reader(shard)) for name, shard in zip(names, shards, strict=True)]


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        about = json.loads(content) if content else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def load_models(
    captioner: tuple[str, str, str | None],
    scorer: tuple[str, str, str | None],
    settings: Any,
    text_key: str,
    device: Any,
) -> tuple[Any, dict[str, str]]:
    """Return the two models with their processors, and a short name of each one's weights.

    Raises:
        ConfigError: a captioner that cannot generate, or a filter that cannot match.
    """
    from lavis_lite.capfilt.work import Models
    from lavis_lite.common.schema import ConfigError
    from lavis_lite.models.blip_models.matcher import BlipMatcher

    writer, writer_eyes = _load(captioner, device)
    judge, judge_eyes = _load(scorer, device)
    if not hasattr(writer, "generate"):
        raise ConfigError(f"{type(writer).__name__} cannot write captions; name a captioner.")
    if not isinstance(judge, BlipMatcher):
        raise ConfigError(f"{type(judge).__name__} cannot match images and texts; name a filter that can.")
    models = Models(
        _caption_with(writer, settings, device),
        writer_eyes,
        _score_with(judge, device),
        judge_eyes,
        _opener(text_key),
    )
    return models, {"captioner": _fingerprint(writer), "filter": _fingerprint(judge)}


def _load(model: tuple[str, str, str | None], device: Any) -> tuple[Any, Any]:
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.models import load_model_and_preprocess

    name, model_type, checkpoint = model
    if checkpoint and (run := RunFolder.at(checkpoint)) is not None:
        name = run.config()["model"]["arch"]
        model_type = run.config()["model"].get("model_type")
    loaded, eyes, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=device, checkpoint=checkpoint
    )
    return loaded, eyes["eval"]


def _caption_with(model: Any, settings: Any, device: Any) -> Callable[..., list[list[str]]]:
    import torch

    count = settings.captions_per_image

    @torch.inference_mode()
    def caption(images: Any, seeds: Sequence[int]) -> list[list[str]]:
        captions = model.generate(
            {"image": images.to(device)}, num_captions=count, seed=list(seeds), **settings.generation_settings
        )
        return [captions[start : start + count] for start in range(0, len(captions), count)]

    return caption


def _score_with(model: Any, device: Any) -> Callable[..., list[list[tuple[float, float]]]]:
    import torch

    @torch.inference_mode()
    def score(images: Any, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        hidden, embeddings = model.read_visual({"image": images.to(device)})
        flat = [text for own in texts for text in own]
        similarity = iter(
            (model.embed_texts(flat) if flat else embeddings[:0]).split([len(own) for own in texts])
        )
        logits = model.match_candidates(hidden, texts)
        return [
            list(
                zip(
                    own.softmax(1)[:, 1].tolist(),
                    (next(similarity) @ embedding).float().tolist(),
                    strict=True,
                )
            )
            for own, embedding in zip(logits, embeddings, strict=True)
        ]

    return score


def _opener(text_key: str) -> Callable[[Any], tuple[Any, str]]:
    from lavis_lite.common.images import ImageError, open_image
    from lavis_lite.datasets.web.shards import IMAGE_MEMBERS

    def opened(sample: Any) -> tuple[Any, str]:
        image = next((sample.members[suffix] for suffix in IMAGE_MEMBERS if suffix in sample.members), None)
        if image is None:
            raise ImageError(f"{sample.key}: has no image.")
        if text_key == "txt":
            text = sample.members.get("txt", b"").decode("utf-8", errors="replace")
        else:
            text = sample.about.get(text_key) or ""
        return open_image(io.BytesIO(image), name=sample.key), " ".join(str(text).split())

    return opened


def _fingerprint(model: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()
