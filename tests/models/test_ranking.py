"""Retrieval over a split: against scoring every pair by itself, and on several ranks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from counting import count_projections
from processes import run
from torch import nn

from lavis_lite import load_model
from lavis_lite.common.settings import RankingSettings
from lavis_lite.models.blip_models.ranking import NO_CANDIDATE, rank_images_and_texts

SHAPES, COLOURS = ("circle", "star", "heart"), ("red", "blue", "green")
TEXTS = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS] + ["a red circle next to a star"]
IMAGES = 7


def build():
    torch.manual_seed(0)
    model = load_model("blip_retrieval", "tiny", is_eval=True, queue_size=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def pictures() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class Loader:
    """A rank's share of the images, in batches of two, as the runner's loader yields them."""

    dataset = SimpleNamespace(text=TEXTS, image=list(range(IMAGES)))

    def __init__(self, rank: int = 0, world_size: int = 1, missing: int | None = None) -> None:
        self.numbers = [n for n in range(rank, IMAGES, world_size) if n != missing]

    def __iter__(self):
        for start in range(0, len(self.numbers), 2):
            index = torch.tensor(self.numbers[start : start + 2])
            yield {"image": pictures()[index], "index": index}


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def everything(model):
    """Similarity and match logit of every image with every text, one pair at a time."""
    similarity, match = np.zeros((IMAGES, len(TEXTS))), np.zeros((IMAGES, len(TEXTS)))
    with torch.no_grad():
        for i in range(IMAGES):
            image_embeds = model.encode_image(pictures()[i : i + 1])
            image_kv = model.text_encoder.project_image(image_embeds)
            for j, text in enumerate(TEXTS):
                similarity[i, j] = model.project_image_embeds(image_embeds)[0] @ model.embed_texts([text])[0]
                match[i, j] = model.match_logits(*model.tokenize([text]), image_kv)[0, 1]
    return similarity, match


@pytest.mark.parametrize("cache_bytes", [0, 2 << 30], ids=["images read twice", "hidden states kept"])
@pytest.mark.parametrize("k_test", [1, 3, 100])
def test_candidates_score_match_plus_similarity_and_the_rest_is_out(model, everything, k_test, cache_bytes):
    similarity, match = everything
    settings = RankingSettings(k_test=k_test, rerank_cache_bytes=cache_bytes, rerank_max_tokens=20)
    found = rank_images_and_texts(model, Loader(), TEXTS, IMAGES, settings)
    for scores, similar, matches in (
        (found[0], similarity, match),
        (found[1], similarity.T, match.T),
    ):
        for row in range(len(scores)):
            best = set(np.argsort(-similar[row])[:k_test].tolist())
            for column in range(scores.shape[1]):
                expected = similar[row, column] + matches[row, column]
                expected = expected if column in best else NO_CANDIDATE
                assert scores[row, column] == pytest.approx(expected, abs=1e-4)


def test_without_reranking_the_similarities_are_the_scores(model, everything):
    settings = RankingSettings(rerank=False)
    image_to_text, text_to_image = rank_images_and_texts(model, Loader(), TEXTS, IMAGES, settings)
    np.testing.assert_allclose(image_to_text, everything[0], atol=1e-5)
    np.testing.assert_allclose(text_to_image, everything[0].T, atol=1e-5)


def test_an_image_that_cannot_be_read_is_found_by_nobody(model):
    loader, settings = Loader(missing=2), RankingSettings(k_test=3)
    image_to_text, text_to_image = rank_images_and_texts(model, loader, TEXTS, IMAGES, settings)
    assert (image_to_text[2] <= NO_CANDIDATE).all()
    assert (text_to_image[:, 2] == NO_CANDIDATE).all()
    assert (image_to_text[3] > NO_CANDIDATE).sum() == 3


def test_each_image_is_projected_once_a_layer(model):
    with count_projections(model.text_encoder) as rows:
        model.compute_sim_matrix(Loader(), SimpleNamespace(k_test=4))
    assert rows == [IMAGES] * len(model.text_encoder.layers)


def test_two_ranks_find_what_one_finds(model, tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = run([*command, __file__, str(tmp_path)], PYTHONPATH=":".join(sys.path))
    assert result.returncode == 0, result.stderr
    expected = model.compute_sim_matrix(Loader(), SimpleNamespace(k_test=3))
    for rank in range(2):
        for direction, scores in enumerate(expected):
            found = np.load(tmp_path / f"{rank}_{direction}.npy")
            np.testing.assert_allclose(found, scores, atol=1e-5)


def _rank_main(folder: Path) -> None:
    """Be one of several ranks."""
    from lavis_lite.common import distributed

    distributed.start("cpu")
    loader = Loader(distributed.rank(), distributed.world_size())
    model: nn.Module = build()
    for direction, scores in enumerate(model.compute_sim_matrix(loader, SimpleNamespace(k_test=3))):
        np.save(folder / f"{distributed.rank()}_{direction}.npy", scores)
    distributed.stop()


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]))
