"""The fast tests leave out what starts processes, found through helpers and fixtures."""

from __future__ import annotations

import subprocess

from processes import run
from tiers import uses_processes


def indirectly() -> None:
    helper()


def helper() -> None:
    run(["true"])


def inside_a_function() -> object:
    return lambda: subprocess.run(["true"], check=True)


def nothing_of_the_kind() -> str:
    return "run"


def test_a_process_is_noticed_through_helpers() -> None:
    assert all(map(uses_processes, (indirectly, helper, inside_a_function)))
    assert not uses_processes(nothing_of_the_kind)
