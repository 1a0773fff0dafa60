"""Image search in two stages: embeddings find candidates, the matching head re-ranks the best (section 5.1).

There are two kinds of features. *Embeddings* are projected vectors of length 1, small enough to keep for
millions of images. *Hidden states* are the input of the matching head, some thousand times as large, and are
kept only on request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.media.image_files import ImageFile, read_images
from lavis_lite.common.media.images import ImageError, open_image, to_upright_rgb
from lavis_lite.models.blip_models.matcher import BlipMatcher
from lavis_lite.models.weights.digest import weights_digest
from lavis_lite.search.feature_store import FeatureStore, FeatureStoreError, Stamp

logger = logging.getLogger(__name__)
EMBEDDINGS, HIDDEN_STATES = "embeddings.f32", "hidden_states.f16"
COMPARISON_BATCH = 1 << 16  # images that are compared with a query at once; bounds the memory
MATCHING_BATCH = 16


@dataclass(frozen=True)
class Hit:
    """An image found by a search.

    Attributes:
        path: of the image.
        score: the order of hits: the similarity, plus the match logit if the image was re-ranked.
        similarity: cosine of the embeddings, -1 to 1.
        match_probability: of the matching head, 0 to 1; None without re-ranking.
    """

    path: Path
    score: float
    similarity: float
    match_probability: float | None = None


class ImageIndex:
    """Features of images in a folder on disk, and searches in them.

    Images can be added repeatedly; known, unchanged ones are not read again. A killed addition keeps what it
    wrote. One process adds at a time and others wait; any number may search meanwhile, and searching writes
    nothing. Images are identified by absolute path, so the working folder does not matter; an index that was
    moved together with its images finds them.

    Args:
        folder: where features are stored; created by the first addition.
        model: reads images and texts; an index belongs to the weights it was made with.
        vis_processor: the model's processor for evaluation.
        keep_hidden_states: also store the input of the matching head (a megabyte per image at 384
            pixels); otherwise re-ranking reads the images again. Only for a new folder.
        source: how to load the model ("name", "type", "checkpoint"), recorded in the index.

    Raises:
        FeatureStoreError: the folder holds the features of another model, or nothing in it can be used.
            Damaged parts are reported and left out until the next addition.

    Example:
        >>> from lavis_lite import load_model_and_preprocess
        >>> model, vis, _ = load_model_and_preprocess("blip_image_text_matching", "tiny", is_eval=True)
        >>> index = ImageIndex(getfixture("tmp_path"), model, vis["eval"])
        >>> len(index), index.search("a red circle")
        (0, [])
    """

    def __init__(
        self,
        folder: str | Path,
        model: BlipMatcher,
        vis_processor: Callable[[Image.Image], Tensor],
        *,
        keep_hidden_states: bool = False,
        source: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model.eval()
        self.vis_processor = vis_processor
        config = model.config
        features = {EMBEDDINGS: [config.embed_dim]}
        if keep_hidden_states:
            position_embeddings = model.visual_encoder.pos_embed
            assert position_embeddings is not None
            features[HIDDEN_STATES] = list(position_embeddings.shape[1:])
        # Features of images depend on these weights only.
        weights = weights_digest(model, ("visual_encoder.", "vision_proj."))
        about = {"weights": weights, "image_size": config.image_size}
        self.store = FeatureStore(Path(folder).expanduser(), about, features, source)
        if keep_hidden_states and HIDDEN_STATES not in self.store.features:
            logger.warning("%s: was made without hidden states, so it keeps none; make a new index.", folder)
        if self.store.features.get(EMBEDDINGS) != [config.embed_dim]:
            raise FeatureStoreError(
                f"{self.store.folder}: holds no embeddings of {config.embed_dim} numbers."
            )
        self.store.verify(EMBEDDINGS)
        if self.store.damage and not self.store.rows:
            raise FeatureStoreError(
                f"{self.store.folder}: nothing in this index can be used ({self.store.damage[0]}). Remove "
                "the folder and add the images again."
            )
        _warn_each("%s Add the images again to repair the index.", self.store.damage)

    def __len__(self) -> int:
        """Number of images in the index."""
        return len(self.store.rows)

    @property
    def paths(self) -> list[Path]:
        """The images that can be found."""
        return list(self.store.rows)

    @property
    def unreadable(self) -> dict[Path, str]:
        """The images that could not be read, and why."""
        return self.store.errors

    def add(self, files: Sequence[str | Path], batch_size: int = 32, num_workers: int = 2) -> int:
        """Embed the image files that are new or have changed; return their number.

        An unreadable file is listed in `unreadable` and retried by the next addition. Files that are gone
        from a folder that still exists are removed from the index.

        Raises:
            FeatureStoreError: the folder is not empty and holds no index.
        """
        with self.store.adding(verify=[EMBEDDINGS]):
            gone = self.store.forget_removed()
            if gone:
                logger.info("%d images are gone and were taken out of the index.", len(gone))
            new = self.store.lacking(files)
            batches = read_images(list(new), self.vis_processor, batch_size, num_workers)
            with Progress(len(new), "embed") as progress, torch.inference_mode():
                for batch in batches:
                    self._append(batch, new)
                    progress.advance(len(batch))
        if self.unreadable:
            logger.warning("%d images cannot be read; %d can.", len(self.unreadable), len(self))
        return len(new.keys() & self.store.rows.keys())

    @torch.inference_mode()
    def search(self, text: str, k: int = 10, rerank: int = 64) -> list[Hit]:
        """Return the `k` images that match `text` best, best first.

        Args:
            rerank: how many of the most similar images the matching head reads; 0 for none.
        """
        hits = self._most_similar(self.model.embed_texts([text])[0], max(k, rerank))
        candidates = hits[:rerank]
        matched = [
            hit
            for start in range(0, len(candidates), MATCHING_BATCH)
            for hit in self._match(candidates[start : start + MATCHING_BATCH], text)
        ]
        # The others rank below: their similarity is lower than that of all candidates.
        return (sorted(matched, key=lambda hit: -hit.score) + hits[rerank:])[:k]

    @torch.inference_mode()
    def search_by_image(self, image: str | Path | Image.Image, k: int = 10) -> list[Hit]:
        """Return the `k` images most similar to `image`, best first.

        Raises:
            ImageError: the file cannot be read.
        """
        opened = to_upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
        return self._most_similar(self.model.embed_images(self._pixels([opened]))[0], k)

    def _append(self, batch: Sequence[ImageFile], stamps: Mapping[Path, Stamp | None]) -> None:
        images = {item.path: item.image for item in batch if item.image is not None}
        features = {}
        if images:
            hidden = self.model.encode_image(self._on_device(torch.stack(list(images.values()))))
            features[EMBEDDINGS] = self.model.project_image_embeds(hidden).float().cpu().numpy()
            if HIDDEN_STATES in self.store.features:
                features[HIDDEN_STATES] = hidden.half().cpu().numpy()
        errors = {item.path: item.error for item in batch if item.image is None}
        self.store.append({path: stamps[path] for path in images}, features, errors)

    def _most_similar(self, query: Tensor, k: int) -> list[Hit]:
        """Return the `k` most similar images whose files exist, best first."""
        paths = {row: path for path, row in self.store.rows.items()}
        if not paths:
            return []
        query = query.float().cpu()
        embeddings = self.store.read(EMBEDDINGS)
        similarity = torch.cat(
            [
                torch.from_numpy(np.array(embeddings[start : start + COMPARISON_BATCH])) @ query
                for start in range(0, len(embeddings), COMPARISON_BATCH)
            ]
        )
        rows = torch.tensor(sorted(paths))  # without the old rows of changed files
        values, order = similarity[rows].sort(descending=True, stable=True)
        hits: list[Hit] = []
        gone: list[Path] = []
        for row, value in zip(rows[order].tolist(), values.tolist(), strict=True):
            if len(hits) == k:
                break
            if paths[row].exists():
                hits.append(Hit(paths[row], value, value))
            else:
                gone.append(paths[row])
        _warn_each("left out of the result: %s is not there any more.", gone)
        changed = [hit.path for hit in hits if self.store.changed(hit.path)]
        _warn_each("%s has changed since it was added; add it again.", changed)
        return hits

    def _match(self, hits: Sequence[Hit], text: str) -> list[Hit]:
        """Return `hits` with the scores of the matching head, without those whose files are gone."""
        readable, hidden = self._hidden_states(hits)
        if hidden is None:
            return []
        input_ids, attention_mask = self.model.tokenize([text] * len(readable))
        image_kv = self.model.text_encoder.project_image(hidden)
        logits = self.model.match_logits(input_ids, attention_mask, image_kv).float()
        probabilities = logits.softmax(1)[:, 1].tolist()
        return [
            Hit(hit.path, logit + hit.similarity, hit.similarity, probability)
            for hit, logit, probability in zip(readable, logits[:, 1].tolist(), probabilities, strict=True)
        ]

    def _hidden_states(self, hits: Sequence[Hit]) -> tuple[list[Hit], Tensor | None]:
        """Return the readable hits and their images' hidden states (hits, tokens, width), None if no hit."""
        if HIDDEN_STATES in self.store.features:
            damaged = self.store.damaged(HIDDEN_STATES, [hit.path for hit in hits])
            if not damaged:
                rows = self.store.rows
                stored = np.array(self.store.read(HIDDEN_STATES)[[rows[hit.path] for hit in hits]])
                return list(hits), self._on_device(torch.from_numpy(stored))
            _warn_each("the hidden states of %s are damaged: reading the image again.", damaged)
        readable, images = [], []
        for hit in hits:
            try:
                images.append(open_image(hit.path))
                readable.append(hit)
            except ImageError as error:
                logger.warning("left out of the result: %s", error)
        return readable, self.model.encode_image(self._pixels(images)) if images else None

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return self._on_device(torch.stack([self.vis_processor(image) for image in images]))

    def _on_device(self, tensor: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        return tensor.to(parameter.device, parameter.dtype)


def _warn_each(message: str, items: Sequence[object], shown: int = 5) -> None:
    """Warn about each of `items`, or about the first few and the number of the others."""
    for item in items[:shown]:
        logger.warning(message, item)
    if len(items) > shown:
        logger.warning("... and %d more.", len(items) - shown)
