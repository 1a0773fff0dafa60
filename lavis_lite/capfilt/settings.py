"""What decides which texts a cleaned sample keeps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import suggest
from lavis_lite.metrics.selection import metric_names_in

Which = Literal["both", "web", "synthetic", "none"]


@dataclass
class SelectionSettings:
    """Which texts are kept, of those that the models have scored.

    Attributes:
        rule: a score, or a sum of scores, which must be at least `threshold`: "itm" (match
            probability), "itc" (similarity), "itm + 4*itc", or what any other scorer gives; "best" keeps
            one text of each image, "fraction" the best `fraction` of a shard's texts, by `score`.
        score: a score, or a sum of scores: what "best", "fraction" and `best_synthetic` go by; None for
            what `rule` names, or itm.
        best_synthetic: of an image's synthetic texts that pass, keep the best so many; None for all.
        reference: Parquet of scores (``scores.parquet`` of a run) of pairs that are known to match: the
            threshold becomes what `keep_matching` of them reach. Similarities of one model lie higher
            than another's; such a threshold goes with them.
        keep_matching: share of the reference's texts that pass.
        filtered: which texts the rule is asked about; the others are kept.
        min_words, max_words: of a text, by its spaces; others are dropped whatever their scores.
        drop_patterns: regular expressions; a text in which one is found, whatever the case, is dropped:
            ``["https?://", "click (here|to)"]``.
        drop_repeats: keep of equal texts of one image (letters' case and punctuation apart) the first.
        near_repeats: of an image's texts that pass, drop those that have this share of their words (those
            in both, of those in either) in common with one before; None to not look.
    """

    rule: str = "itm"
    score: str | None = None
    best_synthetic: int | None = None
    threshold: float = 0.5
    fraction: float = 0.5
    reference: str | None = None
    keep_matching: float = 0.95
    filtered: Which = "both"
    min_words: int = 1
    max_words: int = 100
    drop_patterns: list[str] = field(default_factory=list)
    drop_repeats: bool = True
    near_repeats: float | None = None

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = []
        if not math.isfinite(self.threshold):
            complaints.append(("threshold", f"must be a finite number, found {self.threshold!r}."))
        if not 0 < self.fraction <= 1:
            complaints.append(("fraction", f"must lie in (0, 1], found {self.fraction!r}."))
        if not 1 <= self.min_words <= self.max_words:
            complaints.append(("min_words", "1 <= min_words <= max_words must hold."))
        if not 0 < self.keep_matching < 1:
            complaints.append(("keep_matching", f"must lie between 0 and 1, found {self.keep_matching!r}."))
        if self.reference is not None and self.rule in ("best", "fraction"):
            complaints.append(("reference", f"sets a threshold, which rule: {self.rule} has no use for."))
        if self.near_repeats is not None and not 0 < self.near_repeats <= 1:
            complaints.append(("near_repeats", f"must lie in (0, 1], found {self.near_repeats!r}."))
        for pattern in self.drop_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                complaints.append(("drop_patterns", f"{pattern!r} is no regular expression: {error}."))
        if self.best_synthetic is not None and self.best_synthetic < 1:
            complaints.append(("best_synthetic", "must be at least 1; leave it out to keep all."))
        return complaints

    @property
    def threshold_on(self) -> str:
        """What must reach the threshold."""
        return self.compared_by if self.rule in ("best", "fraction") else self.rule

    @property
    def compared_by(self) -> str:
        """What says which of several texts is better."""
        return self.score or ("itm" if self.rule in ("best", "fraction") else self.rule)

    def check_scores(self, names: Sequence[str]) -> None:
        """Refuse a rule that asks for scores which nobody gives.

        Raises:
            ConfigError: the score is named, with those that there are.
        """
        for key, expression in (("rule", self.threshold_on), ("score", self.compared_by)):
            try:
                wanted = metric_names_in(expression)
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from error
            for name in wanted:
                if name not in names:
                    further = ["best", "fraction"] if key == "rule" else []
                    raise ConfigError(f"{key}: no scorer gives {name!r}.{suggest(name, [*names, *further])}")


@dataclass
class CapFiltSettings(SelectionSettings):
    """What CapFilt does to a crawl.

    Attributes:
        captions_per_image: synthetic texts that are made.
        generation: settings of the captioner's `generate`; nucleus sampling where none are given.
        min_image_size: pixels that the shorter side must have; smaller images fail.
        batch_size: images that the models see at once.
        num_workers: threads that decode images while the models work.
        scorers: name of a registered scorer -> its settings. "blip" gives itm and itc, "clip" clip,
            "column" what a Parquet file says.
        sample_per: "image" writes a sample with all its kept texts, of which training draws one; "text"
            writes a sample for each kept text, its key with a number behind it.
        shard_size: samples of a unit of work, where the input is no shards.
        precision: "bf16" or "float32"; "auto" is bf16 on a GPU that has it.
        opt_out_keys: fields of a sample's json that, where one is true or says "noai", "noimageai" or
            "noindex", take the sample out; none to not look.
        seed: of sampling; a sample's captions depend on it and on the sample's key alone.
    """

    captions_per_image: int = 1
    generation: dict[str, Any] = field(default_factory=dict)
    min_image_size: int = 1
    batch_size: int = 16
    num_workers: int = 2
    scorers: dict[str, dict[str, Any]] = field(default_factory=lambda: {"blip": {}})
    sample_per: Literal["image", "text"] = "image"
    shard_size: int = 1000
    precision: Literal["auto", "bf16", "float32"] = "auto"
    opt_out_keys: list[str] = field(default_factory=lambda: ["opt_out", "x_robots_tag", "X-Robots-Tag"])
    seed: int = 42

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = super().check()
        for key in ("captions_per_image", "min_image_size", "batch_size", "shard_size"):
            least = 0 if key == "captions_per_image" else 1
            if getattr(self, key) < least:
                complaints.append((key, f"must be at least {least}, found {getattr(self, key)!r}."))
        if not self.scorers:
            complaints.append(("scorers", "name at least one; {blip: {}} gives itm and itc."))
        return complaints

    @property
    def generation_settings(self) -> dict[str, Any]:
        """What the captioner is called with: the paper's nucleus sampling unless something else is set."""
        if self.generation:
            return dict(self.generation)
        return {"use_nucleus_sampling": True, "top_p": 0.9, "max_length": 20, "min_length": 5}

    def identity(self) -> dict[str, Any]:
        """Return all that the output depends on, as plain values."""
        names = {key.name for key in fields(CapFiltSettings)} - {"num_workers", "reference"}
        values = {name: getattr(self, name) for name in sorted(names)}
        scorers = {name: _with_real_paths(given or {}) for name, given in self.scorers.items()}
        return {**values, "generation": self.generation_settings, "scorers": scorers}


def _with_real_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scorer's settings, the local files in them in one spelling for every working directory."""
    return {
        key: _real_path(value) if key in ("checkpoint", "file") and isinstance(value, str) else value
        for key, value in settings.items()
    }


def _real_path(value: str) -> str:
    try:
        path = Path(value).expanduser()
        return str(path.resolve()) if path.exists() else value
    except (OSError, RuntimeError, ValueError):  # the name of something else
        return value
