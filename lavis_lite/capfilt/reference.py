"""Finding the threshold by pairs that are known to match."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lavis_lite.capfilt.selection import value_of
from lavis_lite.capfilt.settings import SelectionSettings
from lavis_lite.capfilt.tables import candidate_of, read_rows
from lavis_lite.common.config.schema import ConfigError

Settings = TypeVar("Settings", bound=SelectionSettings)


def with_threshold(settings: Settings) -> Settings:
    """Return `settings` with the threshold that `keep_matching` of the reference's texts reach.

    Settings without a reference come back as they are.

    Raises:
        ConfigError: the reference cannot be read, or lacks a score that the rule asks for.
    """
    if settings.reference is None:
        return settings
    path = Path(settings.reference).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"reference: {path}: no such file. Score pairs that are known to match with the same filter "
            "(captions_per_image=0 filtered=none) and name that run's scores.parquet."
        )
    candidates = [candidate_of(row) for row in read_rows(path) if row["source"]]
    values = sorted(value_of(candidate, settings.threshold_on) for candidate in candidates)
    if not values or values[0] == -math.inf:
        raise ConfigError(f"reference: {path} has no texts that are scored by {settings.threshold_on!r}.")
    return replace(settings, threshold=values[int(len(values) * (1 - settings.keep_matching))])
