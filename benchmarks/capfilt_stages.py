"""Where the time of a CapFilt worker goes; the arguments are those of ``lavis-lite capfilt run``.

    python benchmarks/capfilt_stages.py crawl -o cleaned --captioner my_captioner --filter my_filter

"other" is waiting for images, which are read and decoded beside the models, and selecting texts. Writing
runs beside the models, too.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter

from lavis_lite import cli
from lavis_lite.capfilt.captioner import Captioner
from lavis_lite.capfilt.job import Job
from lavis_lite.capfilt.output_writer import OutputWriter
from lavis_lite.capfilt.scorers import Scorers

seconds: Counter[str] = Counter()


def count_time(stage: str, owner: type, name: str) -> None:
    """Add the time that a method takes to that of a stage."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def timed(*args, **kwargs):
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - started

    setattr(owner, name, timed)


def main() -> None:
    count_time("all", Job, "process")
    count_time("caption", Captioner, "caption")
    count_time("score", Scorers, "score")
    count_time("write", OutputWriter, "commit")
    try:
        cli.main(None, ["capfilt", "run", *sys.argv[1:]])
    finally:
        seconds["other"] = seconds["all"] - seconds["caption"] - seconds["score"]
        for stage in ("caption", "score", "other", "write"):
            share = seconds[stage] / (seconds["all"] or 1)
            print(f"{stage:8} {seconds[stage]:8.1f} s {share:6.1%}")


if __name__ == "__main__":
    main()
