"""The version and the license are said once; what repeats them agrees."""

from __future__ import annotations

from pathlib import Path

import yaml

import lavis_lite

REPOSITORY = Path(__file__).parent.parent


def test_the_citation_names_the_version_and_the_license() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == lavis_lite.__version__
    assert citation["license"] == "BSD-3-Clause"


def test_the_package_takes_its_version_from_the_module() -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in pyproject
    assert 'attr = "lavis_lite.__version__"' in pyproject


def test_the_license_says_whose_the_names_and_layouts_are() -> None:
    license_text = " ".join((REPOSITORY / "LICENSE").read_text("utf-8").split())
    assert license_text.startswith("BSD 3-Clause License")
    assert "BLIP and LAVIS are works of Salesforce" in license_text


def test_the_changelog_has_an_entry_for_the_version() -> None:
    assert f"## {lavis_lite.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
