"""What decides which texts a cleaned sample keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Rule = Literal["itm", "itc", "itm+itc", "best", "fraction"]
Which = Literal["both", "web", "synthetic", "none"]


@dataclass
class SelectionSettings:
    """Which texts are kept, of those that the models have scored.

    Attributes:
        rule: "itm" keeps a text whose match probability is at least `threshold`, "itc" one whose
            similarity is, "itm+itc" one whose sum of both is, "best" the one with the highest match
            probability, "fraction" the best `fraction` of a shard's texts.
        filtered: which texts the rule is asked about; the others are kept.
        min_words, max_words: of a text, by its spaces; others are dropped whatever their scores.
        drop_repeats: keep of equal texts of one image (letters' case and punctuation apart) the first.
    """

    rule: Rule = "itm"
    threshold: float = 0.5
    fraction: float = 0.5
    filtered: Which = "both"
    min_words: int = 1
    max_words: int = 100
    drop_repeats: bool = True

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = []
        if not 0 < self.fraction <= 1:
            complaints.append(("fraction", f"must lie in (0, 1], found {self.fraction!r}."))
        if not 1 <= self.min_words <= self.max_words:
            complaints.append(("min_words", "1 <= min_words <= max_words must hold."))
        return complaints


@dataclass
class CapFiltSettings(SelectionSettings):
    """What CapFilt does to a crawl.

    Attributes:
        captions_per_image: synthetic texts that are made.
        generation: settings of the captioner's `generate`; nucleus sampling where none are given.
        min_image_size: pixels that the shorter side must have; smaller images fail.
        batch_size: images that the models see at once.
        opt_out_key: field of a sample's json that, where it is true or says "noai" or "noindex", takes
            the sample out; None to not look.
        seed: of sampling; a sample's captions depend on it and on the sample's key alone.
    """

    captions_per_image: int = 1
    generation: dict[str, Any] = field(default_factory=dict)
    min_image_size: int = 1
    batch_size: int = 16
    opt_out_key: str | None = "opt_out"
    seed: int = 42

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = super().check()
        for key in ("captions_per_image", "min_image_size", "batch_size"):
            if getattr(self, key) < 1:
                complaints.append((key, f"must be at least 1, found {getattr(self, key)!r}."))
        return complaints

    @property
    def generation_settings(self) -> dict[str, Any]:
        """What the captioner is called with: the paper's nucleus sampling unless something else is set."""
        if self.generation:
            return dict(self.generation)
        return {"use_nucleus_sampling": True, "top_p": 0.9, "max_length": 20, "min_length": 5}

    def identity(self) -> dict[str, Any]:
        """Return all that the output depends on, as plain values."""
        return {**asdict(self), "generation": self.generation_settings}
