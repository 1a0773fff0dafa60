"""Python's logging, set up for the ranks of a run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tqdm import tqdm

HANDLER_NAME = "lavis_lite"
RUN_LOG_FILE = "run.log"


def setup_logging(rank: int = 0, folder: Path | None = None) -> None:
    """Send log messages to standard error and, from rank 0, to run.log in `folder`.

    Rank 0 shows our messages from INFO on, the other ranks only warnings, prefixed by their rank. Other
    packages log from WARNING on; ``logging.getLogger("mine").setLevel("INFO")`` changes that for one.
    A second call replaces the first.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER_NAME]:
        root.removeHandler(handler)
        handler.close()
    logging.getLogger("lavis_lite").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    _add(root, _BarAwareHandler(), _LevelFormatter("%H:%M:%S", rank))
    if rank == 0 and folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file_handler = logging.FileHandler(folder / RUN_LOG_FILE, encoding="utf-8", errors="backslashreplace")
        _add(root, file_handler, _LevelFormatter("%Y-%m-%d %H:%M:%S", rank))


def _add(root: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    handler.name = HANDLER_NAME  # a second call replaces the handlers of the first
    root.addHandler(handler)


class _BarAwareHandler(logging.Handler):
    """Write to standard error without tearing a progress bar that is being shown there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:  # as every handler does: a message that fails must not stop the run
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """Time, rank where it is not 0, level where it is not INFO, message."""

    def __init__(self, time_format: str, rank: int) -> None:
        prefix = "%(asctime)s " + (f"[rank {rank}] " if rank else "")
        super().__init__(prefix + "%(levelname)s %(message)s", datefmt=time_format)
        self._plain = logging.Formatter(prefix + "%(message)s", datefmt=time_format)

    def format(self, record: logging.LogRecord) -> str:
        return self._plain.format(record) if record.levelno == logging.INFO else super().format(record)
