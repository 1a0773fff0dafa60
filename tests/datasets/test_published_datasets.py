"""Every builder of a published data set, on a miniature of its layout: file names, json shapes, items."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from PIL import Image

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import AnnotationError
from lavis_lite.datasets.builders import dataset_zoo

COCO = ["val2014/COCO_val2014_000000000042.jpg", "train2014/COCO_train2014_000000000073.jpg"]
FLICKR = ["flickr30k-images/1000092795.jpg", "flickr30k-images/10002456.jpg"]


def captions(images: list[str], ids: list[str] = ("coco_42", "coco_73")) -> dict[str, Any]:
    train = [
        {"caption": f"text {n} of {image}", "image": image, "image_id": ids[i]}
        for i, image in enumerate(images)
        for n in range(2)
    ]
    evaluation = [{"image": image, "caption": [f"{n} {image}" for n in range(5)]} for image in images]
    return {"train": train, "val": evaluation, "test": evaluation}


def official(ids: list[int]) -> dict[str, Any]:
    answers = [{"answer": "red", "answer_confidence": "yes", "answer_id": n} for n in range(10)]
    return {"annotations": [{"question_id": n, "image_id": 1, "answers": answers} for n in ids]}


VQA_TRAIN = [
    {"question_id": 1, "question": "What colour?", "answer": ["red"] * 7 + ["pink"] * 3, "image": COCO[0]}
    | {"dataset": "vqa"},
    {"question_id": 2, "question": "How many?", "answer": ["2"] * 10, "image": COCO[1], "dataset": "vqa"},
]
VQA_ASKED = [
    {"question_id": n, "question": f"Question {n}?", "image": image, "dataset": "vqa"}
    for n, image in enumerate(COCO)
]
AOK = [
    {"question_id": f"q{n}", "question": "Why?", "image": image, "choices": ["a", "b", "c", "d"]}
    | {"correct_choice_idx": n, "direct_answers": ["a"] * 9 + ["b"]}
    for n, image in enumerate(COCO)
]
NLVR = [
    {
        "sentence": "The left image has a dog.",
        "label": label,
        "images": [f"{split}-0-img0.png", f"{split}-0-img1.png"],
    }
    for split, label in (("dev", "True"), ("dev", "False"))
]

# name -> (files below the cache folder, image folder, images)
LAYOUTS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    **{
        name: (
            {f"coco/annotations/coco_karpathy_{split}.json": rows for split, rows in captions(COCO).items()},
            "coco/images",
            COCO,
        )
        for name in ("coco_caption", "coco_retrieval")
    },
    **{
        name: (
            {f"flickr30k/annotations/{split}.json": rows for split, rows in captions(FLICKR).items()},
            "flickr30k/images",
            FLICKR,
        )
        for name in ("flickr30k", "flickr30k_caption")
    },
    "nocaps": (
        {
            "nocaps/annotations/nocaps_val.json": [
                {
                    "image": "val/0013ea2087020901.jpg",
                    "img_id": 0,
                    "domain": "near-domain",
                    "caption": ["a", "b"],
                },
                {"image": "val/002e21f3a5a2f8e1.jpg", "img_id": 1, "domain": "in-domain", "caption": ["c"]},
            ],
            "nocaps/annotations/nocaps_test.json": [{"image": "val/0013ea2087020901.jpg", "img_id": 7}],
        },
        "nocaps/images",
        ["val/0013ea2087020901.jpg", "val/002e21f3a5a2f8e1.jpg"],
    ),
    "coco_vqa": (
        {
            "coco/annotations/vqa_train.json": VQA_TRAIN[:1],
            "coco/annotations/vqa_val.json": VQA_TRAIN[1:],
            "coco/annotations/vqa_val_eval.json": VQA_ASKED,
            "coco/annotations/vqa_test.json": VQA_ASKED,
            "coco/annotations/answer_list.json": ["red", "pink", "2"],
            "coco/annotations/v2_OpenEnded_mscoco_val2014_questions.json": {"questions": []},
            "coco/annotations/v2_mscoco_val2014_annotations.json": official([0, 1]),
        },
        "coco/images",
        COCO,
    ),
    "vg_vqa": (
        {
            "vg/annotations/vg_qa.json": [
                {
                    "image": "VG_100K/1.jpg",
                    "question": "What?",
                    "answer": "a cat",
                    "question_id": 9,
                    "dataset": "vg",
                }
            ]
        },
        "vg/images",
        ["VG_100K/1.jpg"],
    ),
    "ok_vqa": (
        {
            "okvqa/annotations/okvqa_train.json": VQA_TRAIN,
            "okvqa/annotations/vqa_val_eval.json": VQA_ASKED,
            "okvqa/annotations/answer_list.json": ["red", "pink"],
            "okvqa/annotations/OpenEnded_mscoco_val2014_questions.json": {"questions": []},
            "okvqa/annotations/mscoco_val2014_annotations.json": official([0, 1]),
        },
        "coco/images",
        COCO,
    ),
    "aok_vqa": (
        {
            **{f"aokvqa/annotations/aokvqa_v1p0_{split}.json": AOK for split in ("train", "val", "test")},
            "aokvqa/annotations/large_vocab_train_lavis.json": ["a", "b"],
        },
        "coco/images",
        COCO,
    ),
    "nlvr": (
        {f"nlvr/annotations/nlvr_{split}.json": NLVR for split in ("train", "dev", "test")},
        "nlvr/images",
        ["dev-0-img0.png", "dev-0-img1.png"],
    ),
    "snli_ve": (
        {
            f"snli/annotations/ve_{split}.json": [
                {"image": "1000092795.jpg", "sentence": "Two men.", "label": label}
                for label in ("entailment", "neutral", "contradiction")
            ]
            for split in ("train", "dev", "test")
        },
        "flickr30k/images/flickr30k-images",
        ["1000092795.jpg"],
    ),
    "imagenet": (
        {},
        "imagenet",
        [f"{s}/{c}/{n}.JPEG" for s in ("train", "val") for c in ("n01", "n02") for n in "ab"],
    ),
    **{
        name: ({file: [{"image": "00/1.jpg", "caption": "a text"}]}, images, ["00/1.jpg"])
        for name, file, images in (
            ("vg_caption", "vg/annotations/vg_caption.json", "vg/images"),
            ("sbu_caption", "sbu_captions/annotations/sbu.json", "sbu_captions/images"),
            (
                "conceptual_caption_3m",
                "conceptual_caption/annotations/cc3m.json",
                "conceptual_caption/images",
            ),
            (
                "conceptual_caption_12m",
                "conceptual_caption/annotations/cc12m.json",
                "conceptual_caption/images_12m",
            ),
            ("capfilt14m", "capfilt14m/annotations/ccs_synthetic_filtered.json", "capfilt14m/images"),
        )
    },
}
CAPTION_TRAIN = {"image", "text_input", "image_id", "instance_id"}
CAPTION_EVAL = {"image", "image_id", "instance_id", "references", "image_path"}
RETRIEVAL_EVAL = {"image", "index", "instance_id"}
VQA_EVAL = {"image", "text_input", "question_id", "instance_id", "references", "image_path", "question_type"}
ITEMS: dict[str, tuple[set[str], set[str]]] = {
    **dict.fromkeys(("coco_caption", "flickr30k_caption"), (CAPTION_TRAIN, CAPTION_EVAL)),
    **dict.fromkeys(("coco_retrieval", "flickr30k"), (CAPTION_TRAIN, RETRIEVAL_EVAL)),
    "nocaps": (set(), {*CAPTION_EVAL, "domain"}),
    **dict.fromkeys(
        ("coco_vqa", "vg_vqa", "ok_vqa"),
        ({"image", "text_input", "answers", "weights", "instance_id"}, VQA_EVAL),
    ),
    "aok_vqa": (
        {"image", "text_input", "answers", "weights", "instance_id"},
        {*VQA_EVAL, "choices", "correct_choice_idx", "direct_answers"},
    ),
    "nlvr": (
        {"image0", "image1", "text_input", "label", "instance_id"},
        {"image0", "image1", "text_input", "label", "instance_id"},
    ),
    **dict.fromkeys(
        ("snli_ve", "imagenet"),
        ({"image", "text_input", "label", "image_id", "image_path", "instance_id"},) * 2,
    ),
    **dict.fromkeys(
        ("vg_caption", "sbu_caption", "conceptual_caption_3m", "conceptual_caption_12m", "capfilt14m"),
        (CAPTION_TRAIN, set()),
    ),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function that lays a data set into a cache folder and gives its splits."""
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))

    def lay(name: str, **changes: Any) -> dict[str, Any]:
        files, images_folder, images = LAYOUTS[name]
        for file, content in {**files, **changes}.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(json.dumps(content))
        for image in images:
            path = tmp_path / images_folder / image
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (200, 10, 10)).save(path, "JPEG")
        builder = registry.get_builder_class(name)
        eyes = {split: {"name": "blip_image_eval", "image_size": 16} for split in ("train", "eval")}
        return builder.from_config(
            {**dataset_defaults(builder, name), "vis_processor": eyes}
        ).build_datasets()

    return lay


def test_every_published_builder_is_tested_here():
    ours = ("shapes_", "webdataset_", "laion", "caption_json", "image_folder", "hf_dataset", "ms")
    assert set(LAYOUTS) == {name for name in dataset_zoo.get_names() if not name.startswith(ours)}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_split_gives_items_with_the_documented_keys(place, name):
    splits = place(name)
    assert splits
    for split, dataset in splits.items():
        expected = ITEMS[name][split != "train"]
        for index in range(len(dataset)):
            item = dataset[index]
            assert set(item) == expected, (split, item)
            for key in ("image", "image0", "image1"):
                if key in item:
                    assert item[key].shape == (3, 16, 16) and item[key].dtype == torch.float32
            assert isinstance(item.get("text_input", ""), str) and isinstance(item.get("label", 0), int)
        batch = dataset.collater([dataset[0], dataset[len(dataset) - 1]])
        assert len(next(iter(batch.values()))) == 2


def test_captions_of_coco_are_known_by_the_number_in_the_file_name(place):
    splits = place("coco_caption")
    assert [splits["val"][n]["image_id"] for n in (0, 1)] == [42, 73]
    assert len(splits["train"]) == 4 and len(splits["test"][0]["references"]) == 5


def test_retrieval_numbers_images_and_texts(place):
    splits = place("coco_retrieval")
    assert [splits["train"][n]["image_id"] for n in range(4)] == [0, 0, 1, 1]
    test = splits["test"]
    assert test.image == COCO and len(test.text) == 10
    assert test.img2txt == {0: [0, 1, 2, 3, 4], 1: [5, 6, 7, 8, 9]}
    assert test.txt2img == {text: text // 5 for text in range(10)}


def test_nocaps_goes_by_the_numbers_of_its_server(place):
    splits = place("nocaps")
    assert [item["image_id"] for item in (splits["val"][0], splits["val"][1], splits["test"][0])] == [0, 1, 7]
    assert splits["val"][0]["domain"] == "near-domain" and splits["test"][0]["references"] == []


def test_answers_weigh_as_much_as_people_gave_them(place):
    train = place("coco_vqa")["train"]
    assert (train[0]["answers"], train[0]["weights"]) == (["red", "pink"], [0.7, 0.3])
    batch = train.collater([train[0], train[1]])
    assert batch["answer"] == ["red", "pink", "2"] and batch["n_answers"].tolist() == [2, 1]
    torch.testing.assert_close(batch["weight"], torch.tensor([0.7, 0.3, 1.0]))


def test_the_lone_answers_of_visual_genome_weigh_little(place):
    train = place("vg_vqa")["train"]
    assert (train[0]["answers"], train[0]["weights"]) == (["a cat"], [0.2])


def test_questions_are_judged_by_the_official_annotations(place):
    splits = place("coco_vqa")
    assert splits["val"].answer_list == ["red", "pink", "2"]
    assert splits["val"][0]["references"] == ["red"] * 10
    assert splits["test"][0]["references"] == [] and splits["test"].answer_list is not None


def test_a_sentence_goes_with_its_images_when_they_change_sides(place):
    train = place("nlvr")["train"]
    sentences = set()
    for seed in range(20):
        torch.manual_seed(seed)
        sentences.add(train[0]["text_input"])
    assert sentences == {"The left image has a dog.", "The right image has a dog."}


def test_classes_are_numbered_by_name(place):
    splits = place("imagenet")
    assert splits["train"].classes == ["n01", "n02"]
    assert [splits["val"][n]["label"] for n in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "coco_vqa",
            "coco/annotations/vqa_train.json",
            [{"image": "a.jpg", "answer": ["b"]}],
            r"vqa_train.*0.*'question'",
        ),
        ("coco_vqa", "coco/annotations/vqa_train.json", [{**VQA_TRAIN[0], "answer": []}], "has no answer"),
        ("coco_vqa", "coco/annotations/answer_list.json", ["red", 1], "expected a list of answers"),
        (
            "coco_vqa",
            "coco/annotations/v2_mscoco_val2014_annotations.json",
            [],
            "no file of VQA's annotations",
        ),
        (
            "nlvr",
            "nlvr/annotations/nlvr_dev.json",
            [{**NLVR[0], "label": "Maybe"}],
            "expected True or False.*Maybe",
        ),
        ("nlvr", "nlvr/annotations/nlvr_dev.json", [{**NLVR[0], "images": ["a.png"]}], "two file names"),
        (
            "snli_ve",
            "snli/annotations/ve_dev.json",
            [{"image": "a", "sentence": "b", "label": "neutrall"}],
            "neutral",
        ),
        ("coco_retrieval", "coco/annotations/coco_karpathy_val.json", [{"image": "a.jpg"}], "no 'caption'"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(place, name, file, content, message):
    with pytest.raises(AnnotationError, match=message):
        place(name, **{file: content})


def test_images_that_are_not_there_say_where_they_belong(place, tmp_path):
    place("ok_vqa")
    (tmp_path / "coco/images").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"datasets\.ok_vqa\.images"):
        place("nlvr") and registry.get_builder_class("ok_vqa").from_config(
            dataset_defaults(registry.get_builder_class("ok_vqa"), "ok_vqa")
        ).build_datasets()
