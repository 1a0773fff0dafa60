"""Videos as training and evaluation items, and what models make of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lavis_lite import load_model
from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.registry import registry
from lavis_lite.processors import load_processor

FEW = {"train_videos": 3, "val_videos": 2, "test_videos": 4}
SMALL = {
    "vis_processor": {
        "train": {"name": "blip_video_train", "image_size": 64},
        "eval": {"name": "blip_video_eval", "image_size": 64},
    }
}


def build(name: str, **changes):
    builder = registry.get_builder_class(name)
    return builder.from_config({**dataset_defaults(builder, name), **changes}).build_datasets()


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory):
    return build(
        "shapes_video_retrieval", **FEW, **SMALL, folder=str(tmp_path_factory.mktemp("drawn") / "videos")
    )


def test_a_clip_and_its_caption_are_a_training_item(retrieval):
    item = retrieval["train"][0]
    assert set(item) == {"video", "text_input", "image_id", "instance_id"}
    assert item["video"].shape == (3, 8, 64, 64) and item["video"].dtype == torch.float32


def test_an_evaluation_split_numbers_videos_and_texts(retrieval):
    test = retrieval["test"]
    assert set(test[0]) == {"video", "index", "instance_id"} and len(test.image) == 4
    assert test.txt2img == {n: n for n in range(4)} and test.img2txt == {n: [n] for n in range(4)}


def test_questions_come_with_their_clip_and_answers(tmp_path):
    splits = build("shapes_video_qa", **FEW, **SMALL, folder=str(tmp_path / "videos"))
    item = splits["val"][0]
    assert item["video"].shape == (3, 8, 64, 64) and item["references"][0] in splits["val"].answer_list
    batch = splits["train"].collater([splits["train"][n] for n in range(3)])
    assert batch["video"].shape == (3, 3, 8, 64, 64) and batch["n_answers"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["msrvtt_retrieval", "msrvtt_qa", "msvd_qa"])
def test_published_layouts_load(name, tmp_path, monkeypatch, retrieval):
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))
    root = tmp_path / name.split("_")[0]
    (root / "annotations").mkdir(parents=True)
    (root / "videos").symlink_to(retrieval["test"].image_root)
    video = retrieval["test"].image[0]
    for split in ("train", "val", "test"):
        if name == "msrvtt_retrieval":
            rows = [{"video": video, "caption": "a man cooks"}]
            (root / "annotations" / f"retrieval_{split}.json").write_text(json.dumps(rows))
        else:
            rows = [{"video": video, "question": "what?", "answer": "food", "question_id": 1}]
            (root / "annotations" / f"qa_{split}.json").write_text(json.dumps(rows))
    (root / "annotations" / "qa_ans2label.json").write_text(json.dumps({"food": 0, "car": 1}))
    splits = build(name)
    assert all(splits[split][0]["video"].shape == (3, 8, 224, 224) for split in ("train", "val", "test"))
    if name != "msrvtt_retrieval":
        assert splits["test"].answer_list == ["food", "car"]


def test_all_frames_of_a_training_clip_are_cropped_alike():
    class Still:
        def __len__(self):
            return 30

        def frames(self, indices):
            picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            return np.stack([picture] * len(indices))

    processor = load_processor("blip_video_train", {"image_size": 32, "n_frms": 4})
    torch.manual_seed(0)
    first, second = processor(Still()), processor(Still())
    assert all(torch.equal(first[:, 0], first[:, n]) for n in range(4))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_a_video_embeds_as_the_mean_of_its_frames_and_is_read_as_all_their_tokens():
    torch.manual_seed(0)
    model = load_model("blip_retrieval", "tiny", is_eval=True)
    video = torch.randn(2, 3, 5, 64, 64)
    hidden, embeddings = model.read_visual({"video": video})
    frames = [model.embed_images(video[:, :, n]) for n in range(5)]
    mean = torch.stack(frames).mean(0)
    torch.testing.assert_close(embeddings, mean / mean.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)
    tokens = torch.cat([model.encode_image(video[:, :, n]) for n in range(5)], dim=1)
    torch.testing.assert_close(hidden, tokens, atol=1e-5, rtol=1e-5)


def test_a_video_is_answered_about():
    model = load_model("blip_vqa", "tiny", is_eval=True)
    samples = {"video": torch.randn(2, 3, 4, 64, 64), "text_input": ["what moves", "what colour"]}
    answers = model.predict_answers(samples, answer_list=["star", "circle", "red"])
    assert len(answers) == 2 and set(answers) <= {"star", "circle", "red"}
