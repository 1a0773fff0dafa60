"""Caption scores: COCO's own numbers, and plain words about what cannot be scored."""

import contextlib
import io
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from caption_corpus import nasty_captions, ordinary_captions

from lavis_lite.metrics.caption import (
    METRICS,
    CaptionScores,
    available_metrics,
    result_keys,
    score_captions,
)

PACKAGE = Path(find_spec("pycocoevalcap").submodule_search_locations[0])

REFERENCES = {
    7: ["A man rides a wave on a surfboard.", "A surfer, riding a big wave!", "The man is surfing"],
    3: ["Two dogs play in John's garden.", "There are two dogs on the grass"],
    12: ["a café table with 3.5 plates", "It's a table; it isn't set."],
}
CANDIDATES = {3: "two dogs are playing on the grass", 7: "a man on a surfboard", 12: "a table with plates"}


def everything_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def corpus() -> tuple[dict[int, list[str]], dict[int, str]]:
    captions = ordinary_captions(180) + nasty_captions(60)
    references = {image: captions[image * 3 : image * 3 + 3] for image in range(60)}
    return references, dict(enumerate(captions[180:]))


@pytest.fixture(scope="module")
def coco_scores(corpus) -> dict[str, float]:
    """What pycocoevalcap's own evaluation says, SPICE apart, which would download its models."""
    if not os.access(PACKAGE / "tokenizer", os.W_OK):
        pytest.skip("pycocoevalcap writes its temporary files into its own folder, which is read-only")
    from pycocoevalcap import eval as coco_evaluation
    from pycocotools.coco import COCO

    class NoSpice:
        def compute_score(self, references, candidates):
            return 0.0, [0.0] * len(references)

        def method(self):
            return "no SPICE"

    references, candidates = corpus
    annotations = [
        {"image_id": image, "caption": caption} for image, texts in references.items() for caption in texts
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in references],
        "annotations": [{"id": index, **entry} for index, entry in enumerate(annotations)],
    }
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_evaluation, "Spice", NoSpice)
        truth.createIndex()
        results = truth.loadRes([{"image_id": image, "caption": text} for image, text in candidates.items()])
        evaluation = coco_evaluation.COCOEvalCap(truth, results)
        evaluation.evaluate()
    return {**evaluation.eval, "per_image": evaluation.imgToEval}


@dataclass
class Scoring:
    """One scoring of the corpus with Java, and what else it did."""

    scores: CaptionScores
    left_in_package: set[Path]
    left_in_temporary_folder: list[Path]
    printed: str


@pytest.fixture(scope="module")
def scoring(corpus, tmp_path_factory) -> Scoring:
    temporary = tmp_path_factory.mktemp("temporary")
    before = everything_in(PACKAGE)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("tempfile.tempdir", str(temporary))
        scores = score_captions(*corpus)
    return Scoring(scores, everything_in(PACKAGE) - before, [*temporary.iterdir()], printed.getvalue())


@pytest.mark.java
def test_every_number_is_the_one_of_cocos_own_evaluation(scoring, coco_scores):
    scores = scoring.scores
    assert [*scores.scores] == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]
    for key, score in scores.scores.items():
        assert score == pytest.approx(coco_scores[key], abs=1e-12), key
        for image, of_image in scores.per_image[key].items():
            assert of_image == pytest.approx(coco_scores["per_image"][image][key], abs=1e-12), (key, image)


@pytest.mark.java
def test_results_say_what_made_them(scoring):
    scores = scoring.scores
    assert scores.tokenizer == "ptb-java"
    assert scores.implementation["METEOR"].startswith("meteor-1.5.jar on Java ")
    assert scores.implementation["BLEU"].startswith("pycocoevalcap ")
    assert "CIDEr-D" in scores.implementation["CIDEr"]
    assert scores.unavailable == {}


@pytest.mark.java
def test_nothing_is_left_behind_and_nothing_is_printed(scoring):
    assert scoring.left_in_package == set()
    assert scoring.left_in_temporary_folder == []
    assert scoring.printed == ""


@pytest.mark.java
def test_both_tokenizers_lead_to_the_same_numbers(corpus, scoring):
    scores = score_captions(*corpus, ["BLEU", "ROUGE_L", "CIDEr"], tokenizer="python")
    assert scores.tokenizer == "ptb-python"
    assert scores.scores == {key: scoring.scores.scores[key] for key in scores.scores}


def test_the_order_of_the_candidates_does_not_matter():
    one = score_captions(REFERENCES, CANDIDATES, ["CIDEr"], tokenizer="python")
    other = score_captions(REFERENCES, dict(reversed(CANDIDATES.items())), ["CIDEr"], tokenizer="python")
    assert one == other
    assert [*one.per_image["CIDEr"]] == [7, 3, 12]


def test_a_line_separator_gives_no_image_the_words_of_another():
    references = {"a": ["a cat\ron a mat"], "b": ["two\u2028dogs"], "c": ["three birds"]}
    candidates = {"a": "a cat on a\u2029mat", "b": "two dogs", "c": "three\x85birds"}
    scores = score_captions(references, candidates, ["BLEU", "ROUGE_L"], tokenizer="python")
    assert scores.per_image["ROUGE_L"] == pytest.approx({"a": 1, "b": 1, "c": 1})
    assert scores.scores["Bleu_1"] == pytest.approx(1)


@pytest.mark.java
def test_empty_and_very_long_captions_are_scored():
    references = {1: ["a dog runs", "a dog"], 2: ["a cat", "."], 3: ["a bird"], 4: ["a fish ||| swims"]}
    candidates = {1: "", 2: "a cat " * 1700, 3: "x" * 10_000, 4: "a fish ||| swims"}
    scores = score_captions(references, candidates)
    assert scores.per_image["METEOR"][1] == 0.0
    assert scores.per_image["Bleu_1"][1] < 1e-6
    assert scores.per_image["METEOR"][4] > 0.9
    assert all(0 <= score <= 10 for score in scores.scores.values())


@pytest.mark.parametrize(
    ("references", "candidates", "complaint"),
    [
        ({}, {}, "no captions to score"),
        ({1: ["a"]}, {1: "a", 2: "b", 5: "c"}, r"2 candidates have no references: 2, 5\."),
        ({1: ["a"], 4: ["b"]}, {1: "a"}, r"1 images have references but no candidate: 4\."),
        ({1: ["a"], "x": []}, {1: "a", "x": "b"}, r"1 lists of references are empty: 'x'\."),
        ({1: "a cat"}, {1: "a cat"}, r"not a list of texts: 1\."),
        ({1: [None]}, {1: "a cat"}, r"not a list of texts: 1\."),
        ({1: ["a cat"]}, {1: ["a cat"]}, r"1 candidates are not a text: 1\."),
        ({1: ["..."], 2: ["!"]}, {1: "a", 2: "b"}, "None of the 2 references holds a word"),
    ],
)
def test_captions_that_cannot_be_scored_are_named(references, candidates, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_captions(references, candidates, ["CIDEr"], tokenizer="python")


def test_a_long_list_of_faults_is_cut_and_counted():
    with pytest.raises(ValueError, match=r"^50 candidates have no references: 0, 1, 2, 3, 4, \.\.\.\.$"):
        score_captions({}, dict.fromkeys(range(50), "a"), ["CIDEr"])


def test_metric_names_are_read_in_any_case():
    scores = score_captions(REFERENCES, CANDIDATES, ["bleu", "Bleu", "cider"], tokenizer="python")
    assert [*scores.scores] == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "CIDEr"]


def test_every_metric_has_its_result_keys():
    assert [key for metric in METRICS for key in result_keys(metric)] == [
        *["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"]
    ]


def test_an_unknown_metric_is_refused_with_the_nearest():
    for ask in (lambda: result_keys("CIDER-D"), lambda: available_metrics(["CIDErD"])):
        with pytest.raises(ValueError, match=r"No metric is called 'CID.*Did you mean CIDEr"):
            ask()


def test_a_text_where_a_list_of_metrics_belongs_is_refused():
    with pytest.raises(ValueError, match="expected a list of names, found the text 'CIDEr'"):
        score_captions(REFERENCES, CANDIDATES, "CIDEr")


def test_an_unknown_tokenizer_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"no tokenizer 'jave'\. Did you mean java"):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"], tokenizer="jave")
