"""Machines where Java is missing, too new, or broken: clear words, and never a wrong number."""

import os
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from lavis_lite.metrics.caption import available_metrics, score_captions
from lavis_lite.metrics.java import JavaMissingError, JavaProgramError, find_java
from lavis_lite.metrics.meteor import score_meteor
from lavis_lite.metrics.spice import MODEL_FILES, score_spice

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the broken Javas of these tests are shell scripts"
)

PACKAGE = Path(find_spec("pycocoevalcap").submodule_search_locations[0])
REFERENCES = {1: ["a cat on a mat"], 2: ["two dogs", "dogs play"], 3: ["three birds"]}
CANDIDATES = {1: "a cat on the mat", 2: "two dogs", 3: "birds"}
ANSWERS_ITS_VERSION = 'case "$*" in *-version*) echo "openjdk version \\"11.0.2\\"" >&2; exit 0;; esac\n'


@pytest.fixture
def no_java(tmp_path, monkeypatch):
    """A machine without Java."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.fixture
def broken_java(tmp_path, monkeypatch):
    """Put a shell script in Java's place; it gets what Java would be called with."""
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def install(script: str, version: str = ANSWERS_ITS_VERSION) -> Path:
        java = tmp_path / "bin" / "java"
        java.parent.mkdir()
        java.write_text(f"#!/bin/sh\n{version}{script}\n")
        java.chmod(java.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{java.parent}{os.pathsep}{os.environ['PATH']}")
        return java

    return install


def test_without_java_all_but_meteor_is_scored_and_says_so(no_java):
    scores = score_captions(REFERENCES, CANDIDATES)
    assert {"Bleu_4", "ROUGE_L", "CIDEr"} <= scores.scores.keys()
    assert "METEOR" not in scores.scores
    assert scores.tokenizer == "ptb-python"
    assert "`java` is not on PATH" in scores.unavailable["METEOR"]
    assert "Install Java 8 or newer" in scores.unavailable["METEOR"]


def test_without_java_a_run_can_know_beforehand_what_is_missing(no_java):
    reasons = available_metrics()
    assert [name for name, reason in reasons.items() if reason is None] == ["BLEU", "ROUGE_L", "CIDEr"]
    assert "Install Java" in reasons["METEOR"]
    assert "Install Java" in reasons["SPICE"]


def test_without_java_its_tokenizer_is_refused_when_asked_for(no_java):
    with pytest.raises(JavaMissingError, match='tokenizer is "java", but `java` is not on PATH'):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"], tokenizer="java")


def test_a_java_that_cannot_tell_its_version_counts_as_none(broken_java):
    broken_java("", version='echo "no runtime present" >&2; exit 1')
    reason = available_metrics(["METEOR"])["METEOR"]
    assert "does not work" in reason
    assert "no runtime present" in reason
    assert score_captions(REFERENCES, CANDIDATES, ["CIDEr"]).tokenizer == "ptb-python"


def test_java_home_goes_before_path(broken_java, tmp_path, monkeypatch):
    broken_java("exit 1")
    home = tmp_path / "jdk-8" / "bin"
    home.mkdir(parents=True)
    java = home / "java"
    java.write_text('#!/bin/sh\necho "java version \\"1.8.0_292\\"" >&2\n')
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home.parent))
    assert (find_java().path, find_java().version) == (java, 8)


def test_a_java_that_fails_ends_the_scoring_with_its_own_words(broken_java):
    broken_java('echo "Could not reserve enough space for the heap" >&2; exit 3')
    with pytest.raises(JavaProgramError, match=r"PTBTokenizer failed with code 3.*Could not reserve enough"):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"])


def test_a_java_that_hangs_is_stopped_with_all_that_it_started(broken_java, tmp_path):
    sign_of_life = tmp_path / "sign"
    broken_java(f'(while :; do echo >> "{sign_of_life}"; sleep 0.1; done) & wait')
    start = time.monotonic()
    with pytest.raises(JavaProgramError, match=r"PTBTokenizer did not end within 1 s and was stopped"):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"], timeout_seconds=1)
    assert time.monotonic() - start < 20
    written = sign_of_life.stat().st_size
    time.sleep(0.5)
    assert sign_of_life.stat().st_size == written > 0


def test_a_java_that_loses_a_line_gives_an_error_and_no_score(broken_java):
    broken_java('for last; do :; done; sed 1d "$last"')
    with pytest.raises(JavaProgramError, match="wrote 7 lines for 8 captions; no score"):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"])


def test_a_java_that_writes_no_utf8_gives_an_error(broken_java):
    broken_java("printf '\\377\\n'")
    with pytest.raises(JavaProgramError, match="PTBTokenizer wrote what is not UTF-8"):
        score_captions(REFERENCES, CANDIDATES, ["CIDEr"])


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("read line; echo 1.0 2.0; echo OutOfMemoryError >&2; exit 1", "ended with code 1.*OutOfMemoryError"),
        ("sleep 300", "METEOR did not answer within 2 s and was stopped"),
        ("while read line; do case $line in E*) echo 0,5; echo 0,5; echo 0,5;; *) echo 1.0;; esac; done",
         "METEOR answered '0,5' where a score belongs"),
        ("exec <&- >&-; sleep 300", "METEOR fell silent before all was scored"),
    ],
)  # fmt: skip
def test_a_meteor_that_misbehaves_gives_an_error_and_no_score(broken_java, script, complaint):
    broken_java(script)
    with pytest.raises(JavaProgramError, match=complaint):
        score_meteor(find_java(), [["a cat"], ["a dog"]], ["a cat", "dogs"], timeout_seconds=2)


def test_an_exchange_larger_than_any_pipe_does_not_block(broken_java):
    # Answers at length before it reads on, as a program with small buffers may.
    answer = "9" * 2000
    broken_java(
        f"while read word rest; do case $word in EVAL) for i in $(seq 401); do echo 0.5; done;; "
        f"*) echo {answer};; esac; done"
    )
    captions = ["a cat " * 200] * 400
    score, of_each = score_meteor(find_java(), [[text] for text in captions], captions, timeout_seconds=60)
    assert (score, of_each) == (0.5, [0.5] * 400)


@pytest.fixture(scope="module")
def meteor() -> float:
    """METEOR where nothing is odd."""
    return score_captions(REFERENCES, CANDIDATES, ["METEOR"]).scores["METEOR"]


@pytest.mark.java
def test_a_comma_locale_changes_no_number(meteor, monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=ISO-8859-1")
    assert score_captions(REFERENCES, CANDIDATES, ["METEOR"]).scores == {"METEOR": meteor}


@pytest.mark.java
def test_a_package_under_a_path_with_blanks_and_accents_works(tmp_path, meteor):
    place = tmp_path / "my café folder"
    (place / "pycocoevalcap").mkdir(parents=True)
    for folder in ("meteor", "tokenizer"):
        (place / "pycocoevalcap" / folder).symlink_to(PACKAGE / folder)
    program = (
        "from lavis_lite.metrics.caption import score_captions\n"
        "from lavis_lite.metrics.meteor import meteor_files\n"
        "assert 'my caf\\u00e9 folder' in str(meteor_files()[0]), meteor_files()\n"
        f"scores = score_captions({REFERENCES!r}, {CANDIDATES!r}, ['METEOR'])\n"
        "print(scores.tokenizer, scores.scores['METEOR'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(place)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.split() == ["ptb-java", str(meteor)], ended.stderr


def test_spice_names_the_java_and_the_models_that_it_lacks(broken_java):
    java = broken_java("exit 1", version='echo "openjdk version \\"17.0.1\\"" >&2; exit 0\n')
    reason = available_metrics(["SPICE"])["SPICE"]
    assert f"runs on Java 8 to 11 only, and {java} is Java 17" in reason
    if not (PACKAGE / "spice" / "lib" / MODEL_FILES[1]).exists():
        assert "stanford-corenlp-3.6.0-models.jar" in reason
    scores = score_captions(REFERENCES, CANDIDATES, ["SPICE", "CIDEr"], tokenizer="python")
    assert [*scores.scores] == ["CIDEr"]
    assert scores.unavailable == {"SPICE": reason}


def test_spice_scores_are_read_by_image_whatever_their_order(broken_java, tmp_path):
    # The program proper needs models of 385 MB; this stands for it in the form of its results only.
    results = (
        '[{"image_id": 1, "scores": {"All": {"f": null}}}, {"image_id": 0, "scores": {"All": {"f": 0.25}}}]'
    )
    broken_java(f"while [ $1 != -out ]; do shift; done; printf '%s' '{results}' > $2")
    score, of_each = score_spice(find_java(), [["a"], ["b"]], ["a", "b"], 10, program=tmp_path / "spice.jar")
    assert of_each[0] == 0.25
    assert of_each[1] != of_each[1]  # NaN
    assert score != score


def test_a_spice_that_leaves_an_image_out_gives_an_error(broken_java, tmp_path):
    broken_java("while [ $1 != -out ]; do shift; done; echo '[]' > $2")
    with pytest.raises(JavaProgramError, match="results for 1 captions cannot be read"):
        score_spice(find_java(), [["a"]], ["a"], 10, program=tmp_path / "spice.jar")
