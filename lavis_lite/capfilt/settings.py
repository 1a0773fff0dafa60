"""Settings of CapFilt: which texts a cleaned sample keeps, and how they are made."""

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


@dataclass
class SelectionSettings:
    """Which of the scored texts are kept.

    Attributes:
        rule: a score, or a weighted sum of scores, that must be at least `threshold`: "itm" (match
            probability), "itc" (similarity), "itm + 4*itc", or the score of any other scorer. "best" keeps
            one text of each image, "fraction" the best `fraction` of a shard's texts, both by `score`.
        score: the score, or sum of scores, by which "best", "fraction" and `best_synthetic` compare; None
            for the one that `rule` names, or itm.
        best_synthetic: keep at most this many of an image's synthetic texts that pass, the best ones; None
            for all.
        reference: Parquet file of scores (``scores.parquet`` of a run) of pairs that are known to match:
            `threshold` becomes the value that `keep_matching` of them reach. Similarities of one model are
            higher than those of another; such a threshold adapts.
        keep_matching: share of the reference's texts that pass.
        filtered: sources of texts that the rule applies to; other texts are kept.
        min_words, max_words: words of a text, separated by spaces; other texts are dropped.
        drop_patterns: regular expressions, whatever the case; a text that matches one is dropped:
            ``["https?://", "click (here|to)"]``.
        drop_repeats: keep only the first of an image's texts that differ in case and punctuation alone.
        near_repeats: drop a text that shares at least this part of its words (of both texts' together) with
            an earlier kept text of the image; None to keep them.
    """

    rule: str = "itm"
    score: str | None = None
    best_synthetic: int | None = None
    threshold: float = 0.5
    fraction: float = 0.5
    reference: str | None = None
    keep_matching: float = 0.95
    filtered: Literal["both", "web", "synthetic", "none"] = "both"
    min_words: int = 1
    max_words: int = 100
    drop_patterns: list[str] = field(default_factory=list)
    drop_repeats: bool = True
    near_repeats: float | None = None

    def check(self) -> list[tuple[str, str]]:
        """Return (key, error) for each invalid value."""
        best, near = self.best_synthetic, self.near_repeats
        rules = [
            ("threshold", math.isfinite(self.threshold), "must be a finite number"),
            ("fraction", 0 < self.fraction <= 1, "must lie in (0, 1]"),
            ("min_words", 1 <= self.min_words <= self.max_words, "must lie between 1 and max_words"),
            ("keep_matching", 0 < self.keep_matching < 1, "must lie between 0 and 1"),
            ("near_repeats", near is None or 0 < near <= 1, "must lie in (0, 1]"),
            ("best_synthetic", best is None or best >= 1, "must be at least 1, or left out to keep all"),
        ]
        errors = [(key, f"{text}, found {getattr(self, key)!r}.") for key, holds, text in rules if not holds]
        if self.reference is not None and self.rule in ("best", "fraction"):
            errors.append(("reference", f"sets a threshold, which rule {self.rule!r} does not use."))
        for pattern in self.drop_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                errors.append(("drop_patterns", f"{pattern!r} is not a regular expression: {error}."))
        return errors

    @property
    def threshold_on(self) -> str:
        """The score, or sum of scores, that must reach the threshold."""
        return self.compared_by if self.rule in ("best", "fraction") else self.rule

    @property
    def compared_by(self) -> str:
        """The score, or sum of scores, that tells which of several texts is better."""
        return self.score or ("itm" if self.rule in ("best", "fraction") else self.rule)

    def check_scores(self, names: Sequence[str]) -> None:
        """Refuse a rule that needs scores other than `names`.

        Raises:
            ConfigError: the message names the score, and those that there are.
        """
        for key, expression in (("rule", self.threshold_on), ("score", self.compared_by)):
            try:
                needed = metric_names_in(expression)
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from error
            for name in needed:
                if name not in names:
                    rules = ["best", "fraction"] if key == "rule" else []
                    raise ConfigError(f"{key}: no scorer gives {name!r}.{suggest(name, [*names, *rules])}")


@dataclass
class CapFiltSettings(SelectionSettings):
    """Settings of CapFilt.

    Attributes:
        captions_per_image: synthetic texts to generate for each image.
        generation: settings of the captioner's `generate`; the paper's nucleus sampling if empty.
        min_image_size: pixels of the shorter side; smaller images fail.
        batch_size: images that the models process at once.
        num_workers: threads that decode images while the models work.
        scorers: name of a registered scorer -> its settings. "blip" gives itm and itc, "clip" gives clip,
            "column" a column of a Parquet file.
        sample_per: "image" writes one sample with all its kept texts, of which training draws one; "text"
            writes one sample for each kept text, with a number appended to its key.
        shard_size: images of a unit of work, for an input without shards.
        precision: "bf16" or "float32"; "auto" is bf16 on a GPU that supports it.
        opt_out_keys: fields of a sample's json that exclude the sample if true or if they contain "noai",
            "noimageai" or "noindex".
        seed: of sampling; captions depend on it and on the key of the sample, on nothing else.
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
        """Return (key, error) for each invalid value."""
        errors = super().check()
        for key, least in (
            ("captions_per_image", 0),
            ("min_image_size", 1),
            ("batch_size", 1),
            ("shard_size", 1),
        ):
            if getattr(self, key) < least:
                errors.append((key, f"must be at least {least}, found {getattr(self, key)!r}."))
        if not self.scorers:
            errors.append(("scorers", "name at least one; {blip: {}} gives itm and itc."))
        return errors

    @property
    def generation_settings(self) -> dict[str, Any]:
        """Keyword arguments of the captioner's `generate`."""
        if self.generation:
            return dict(self.generation)
        return {"use_nucleus_sampling": True, "top_p": 0.9, "max_length": 20, "min_length": 5}

    def identity(self) -> dict[str, Any]:
        """Return all settings that the output depends on, as plain values."""
        names = {key.name for key in fields(CapFiltSettings)} - {"num_workers", "reference"}
        values = {name: getattr(self, name) for name in sorted(names)}
        scorers = {name: _with_real_paths(config or {}) for name, config in self.scorers.items()}
        return {**values, "generation": self.generation_settings, "scorers": scorers}


def _with_real_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a scorer, with the paths of local files resolved."""
    return {
        key: _real_path(value) if key in ("checkpoint", "file") and isinstance(value, str) else value
        for key, value in config.items()
    }


def _real_path(value: str) -> str:
    try:
        path = Path(value).expanduser()
        return str(path.resolve()) if path.exists() else value
    except (OSError, RuntimeError, ValueError):  # a hub name, an address
        return value
