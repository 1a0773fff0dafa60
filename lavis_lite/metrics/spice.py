"""SPICE 1.0 as COCO computes it: one run of the Java program over a file of captions."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from lavis_lite.metrics.java import Java, JavaProgramError, package_file, run_java

IMPLEMENTATION = "spice-1.0.jar"
MEMORY = "8G"
OLDEST_JAVA, NEWEST_JAVA = 8, 11
MODEL_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_ARCHIVE = "stanford-corenlp-full-2015-12-09.zip"


def spice_problem(java: Java) -> str | None:
    """Return why SPICE cannot run with `java` here and what to do about it, or None when it can."""
    program = package_file("spice", IMPLEMENTATION)
    reasons = []
    if not OLDEST_JAVA <= java.version <= NEWEST_JAVA:
        reasons.append(
            f"it runs on Java {OLDEST_JAVA} to {NEWEST_JAVA} only, and {java.path} is Java {java.version}; "
            f"set JAVA_HOME to one of these (METEOR and the tokenizer run on them too)."
        )
    missing = [name for name in MODEL_FILES if not (program.parent / "lib" / name).exists()]
    if missing:
        reasons.append(
            f"its language models are missing; put {' and '.join(missing)} of Stanford's {_ARCHIVE} (385 MB) "
            f"into {program.parent / 'lib'}. They are not downloaded automatically, because the only server "
            f"that has them offers neither encryption nor a checksum."
        )
    return f"SPICE: {' '.join(reasons)}" if reasons else None


def score_spice(
    java: Java,
    references: Sequence[Sequence[str]],
    candidates: Sequence[str],
    timeout_seconds: float,
    program: Path | None = None,
) -> tuple[float, list[float]]:
    """Return SPICE over all captions, and of each (NaN where neither side has anything to compare).

    Args:
        references: of each image, tokenized.
        candidates: one for each image, tokenized.
        timeout_seconds: after which the program is stopped.
        program: the jar; pycocoevalcap's by default.

    Raises:
        JavaProgramError: the program failed, hung or left no score for an image.
    """
    program = program or package_file("spice", IMPLEMENTATION)
    with tempfile.TemporaryDirectory(prefix="lavis_lite_spice_") as name:
        captions, results, cache = Path(name, "in.json"), Path(name, "out.json"), Path(name, "cache")
        cache.mkdir()
        entries = [
            {"image_id": index, "test": candidate, "refs": list(texts)}
            for index, (texts, candidate) in enumerate(zip(references, candidates, strict=True))
        ]
        captions.write_text(json.dumps(entries), encoding="utf-8")  # \u escapes: any locale reads them
        arguments = [f"-Xmx{MEMORY}", "-jar", str(program), str(captions), "-cache", str(cache)]
        arguments += ["-out", str(results), "-subset", "-silent"]
        run_java(java, arguments, program="SPICE", timeout_seconds=timeout_seconds)
        scores = _read_scores(results, len(entries))
    return fmean(scores), scores


def _read_scores(results: Path, count: int) -> list[float]:
    try:
        entries = json.loads(results.read_text("utf-8"))
        scores = {int(entry["image_id"]): entry["scores"]["All"]["f"] for entry in entries}
        return [math.nan if scores[index] is None else float(scores[index]) for index in range(count)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JavaProgramError(
            f"SPICE ended, but its results for {count} captions cannot be read: {error!r}."
        ) from error
