"""Image search: what is found, what is kept on disk, what a bad file or a kill does to it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lavis_lite import load_model_and_preprocess
from lavis_lite.search.feature_store import FeatureStoreError
from lavis_lite.search.image_index import ImageIndex

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (90, 90, 90)}


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model, vis_processors, _ = load_model_and_preprocess("blip_image_text_matching", "tiny", is_eval=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model, vis_processors["eval"]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        picture = Image.effect_noise((70, 60), 40).convert("RGB")
        Image.blend(picture, Image.new("RGB", (70, 60), colour), 0.7).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


def count_images(model):
    seen = []
    handle = model.visual_encoder.register_forward_hook(lambda module, given, _: seen.append(len(given[0])))
    return seen, handle


def expected_scores(parts, files, text):
    model, processor = parts
    images = torch.stack([processor(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        similarity = (model.embed_images(images) @ model.embed_texts([text]).T)[:, 0]
        logits = model({"image": images, "text_input": [text] * len(files)}, match_head="itm")[:, 1]
    return similarity, logits + similarity


def test_a_text_finds_images_by_similarity(parts, files, tmp_path):
    index = ImageIndex(tmp_path / "index", *parts)
    assert index.add(files, num_workers=0) == 4
    similarity, _ = expected_scores(parts, files, "a red circle")
    hits = index.search("a red circle", k=3, rerank=0)
    order = similarity.argsort(descending=True)[:3].tolist()
    assert [hit.path for hit in hits] == [files[i] for i in order]
    assert [hit.score for hit in hits] == pytest.approx(similarity[order].tolist(), abs=1e-5)
    assert all(hit.match_probability is None for hit in hits)


@pytest.mark.parametrize("keep", [True, False])
def test_the_matching_head_orders_the_best_of_them_anew(parts, files, tmp_path, keep):
    index = ImageIndex(tmp_path / "index", *parts, keep_hidden_states=keep)
    index.add(files, num_workers=0)
    similarity, scores = expected_scores(parts, files, "a red circle")
    hits = index.search("a red circle", k=4, rerank=3)
    candidates = similarity.argsort(descending=True).tolist()
    order = sorted(candidates[:3], key=lambda i: -scores[i]) + candidates[3:]
    assert [hit.path for hit in hits] == [files[i] for i in order]
    assert [hit.score for hit in hits[:3]] == pytest.approx(scores[order[:3]].tolist(), abs=2e-2)
    assert hits[3].match_probability is None and 0 < hits[0].match_probability < 1


def test_an_image_finds_itself_first(parts, files, tmp_path):
    index = ImageIndex(tmp_path / "index", *parts)
    index.add(files, num_workers=0)
    for query in (files[2], Image.open(files[2])):
        first, *_ = index.search_by_image(query, k=2)
        assert first.path == files[2] and first.similarity == pytest.approx(1.0, abs=1e-5)


def test_what_is_there_already_is_not_read_again(parts, files, tmp_path):
    ImageIndex(tmp_path / "index", *parts).add(files[:3], num_workers=0)
    again = ImageIndex(tmp_path / "index", *parts)
    seen, handle = count_images(parts[0])
    assert again.add(files, num_workers=0) == 1
    handle.remove()
    assert seen == [1] and len(again) == 4


def test_a_file_that_changed_is_read_again_and_found_once(parts, files, tmp_path):
    index = ImageIndex(tmp_path / "index", *parts)
    index.add(files, num_workers=0)
    Image.open(files[3]).save(files[0])
    assert index.add(files, num_workers=0) == 1
    hits = index.search_by_image(files[3], k=9)
    assert sorted(hit.path for hit in hits) == files
    assert {hit.path for hit in hits[:2]} == {files[0], files[3]}


def test_a_file_that_cannot_be_read_is_named_and_tried_again(parts, files, tmp_path):
    good = files[1].read_bytes()
    files[1].write_bytes(good[:100])
    index = ImageIndex(tmp_path / "index", *parts)
    assert index.add(files, num_workers=0) == 3
    assert list(index.unreadable) == [files[1]] and files[1].name in index.unreadable[files[1]]
    files[1].write_bytes(good)
    assert index.add(files, num_workers=0) == 1 and not index.unreadable


def test_a_file_that_has_gone_is_left_out_of_the_result(parts, files, tmp_path, caplog):
    index = ImageIndex(tmp_path / "index", *parts)
    index.add(files, num_workers=0)
    files[0].unlink()
    assert len(index.search("a star", k=4)) == 3
    assert files[0].name in caplog.text


@pytest.mark.parametrize("keep", [True, False])
def test_a_kill_in_the_middle_costs_the_last_batch_alone(parts, files, tmp_path, keep):
    """What a kill leaves: features without their line, and half a line."""
    folder = tmp_path / "index"
    index = ImageIndex(folder, *parts, keep_hidden_states=keep)
    index.add(files[:2], num_workers=0)
    with (folder / "embeddings.f32").open("ab") as file:
        file.write(b"half a row")
    with (folder / "files.jsonl").open("a") as log:
        log.write('{"path": "half a li')
    again = ImageIndex(folder, *parts, keep_hidden_states=keep)
    assert again.paths == files[:2]
    assert again.add(files, num_workers=0) == 2
    assert again.search_by_image(files[3], k=1)[0].path == files[3]


def test_features_of_another_model_are_refused(parts, files, tmp_path):
    model, processor = parts
    ImageIndex(tmp_path / "index", model, processor).add(files, num_workers=0)
    torch.manual_seed(1)
    other, _, _ = load_model_and_preprocess("blip_image_text_matching", "tiny", is_eval=True)
    with pytest.raises(FeatureStoreError, match="other weights"):
        ImageIndex(tmp_path / "index", other, processor)


def test_lost_features_are_noticed(parts, files, tmp_path):
    ImageIndex(tmp_path / "index", *parts).add(files, num_workers=0)
    (tmp_path / "index" / "embeddings.f32").write_bytes(b"")
    with pytest.raises(FeatureStoreError, match=r"embeddings\.f32"):
        ImageIndex(tmp_path / "index", *parts)


def test_hidden_states_once_kept_are_used_by_who_opens_the_index_again(parts, files, tmp_path):
    ImageIndex(tmp_path / "index", *parts, keep_hidden_states=True).add(files, num_workers=0)
    assert json.loads((tmp_path / "index" / "index.json").read_text())["features"]["hidden_states.f16"]
    again = ImageIndex(tmp_path / "index", *parts)
    seen, handle = count_images(parts[0])
    assert len(again.search("a star", k=2, rerank=4)) == 2
    handle.remove()
    assert not seen
