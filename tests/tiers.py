"""Which tests run where: the marks of what a test needs, the mark `slow`, and what a run says it left out."""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch

WEIGHTS_SERVER = ("storage.googleapis.com", 443)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# A test that mentions one of these modules, itself or through a helper or a fixture, starts processes.
PROCESS_MODULES = {"subprocess", "multiprocessing", "processes"}
# Modules of the tests whose functions are followed.
HELPERS = {path.stem for path in Path(__file__).parent.glob("*.py")}
SLOW_MARKS = ("java", "browser", "needs_weights")


def find_browser() -> str | None:
    """Return the path of a browser that can be run without a screen."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def wants_weights(config: pytest.Config) -> bool:
    """Return whether the tests were asked for that download the published weights."""
    return config.option.markexpr == "needs_weights"


def missing_weights(config: pytest.Config) -> str | None:
    if not wants_weights(config):
        return "needs the published weights: run pytest -m needs_weights with a network"
    try:
        socket.create_connection(WEIGHTS_SERVER, timeout=10).close()
    except OSError as error:
        return f"needs the published weights, but {WEIGHTS_SERVER[0]} cannot be reached ({error})"
    return None


# mark -> why a test with this mark cannot run here, or None
REQUIREMENTS: dict[str, Callable[[pytest.Config], str | None]] = {
    "java": lambda config: None if shutil.which("java") else "java is not on PATH",
    "browser": lambda config: None if find_browser() else "needs Chromium or Chrome",
    "gpu": lambda config: None if torch.cuda.is_available() else "needs a GPU",
    "needs_weights": missing_weights,
}


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what starts processes, and skip what this machine lacks the means for."""
    needed = {mark for mark in REQUIREMENTS if any(item.get_closest_marker(mark) for item in items)}
    reasons = {mark: REQUIREMENTS[mark](config) for mark in needed}
    for item in items:
        for mark, reason in reasons.items():
            if reason is not None and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
        if any(map(item.get_closest_marker, SLOW_MARKS)) or starts_processes(item):
            item.add_marker("slow")


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test, one of its fixtures or a helper of either starts processes."""
    if not isinstance(item, pytest.Function):
        return False
    fixtures = [one.func for found in item._fixtureinfo.name2fixturedefs.values() for one in found]
    return any(map(uses_processes, [item.function, *fixtures]))


@cache
def uses_processes(function: Callable[..., Any]) -> bool:
    """Return whether a function of the tests, or a function of the tests that it calls, starts processes."""
    waiting, seen = [function], set()
    while waiting:
        current = waiting.pop()
        if not isinstance(current, FunctionType) or current in seen:
            continue
        seen.add(current)
        for name in _names(current.__code__):
            value = current.__globals__.get(name)
            home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if name in PROCESS_MODULES or home in PROCESS_MODULES:
                return True
            if home == current.__module__ or home in HELPERS:
                waiting.append(value)
    return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


_deselected: Counter[str] = Counter()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what `-m` leaves out, by mark."""
    _deselected.update("slow" if item.get_closest_marker("slow") else "another mark" for item in items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker of pytest-xdist to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = dict(_deselected)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the counts of a worker; every worker collects, and leaves out, the same tests."""
    _deselected.update(Counter(getattr(node, "workeroutput", {}).get("deselected", {})) - _deselected)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line which tests did not run, and why."""
    parts = [f"{count} {mark} (make test runs them)" for mark, count in sorted(_deselected.items())]
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "unknown"
        for report in terminalreporter.stats.get("skipped", [])
    )
    parts += [f"{count} because: {reason}" for reason, count in sorted(reasons.items())]
    if parts:
        terminalreporter.write_line("Not run: " + "; ".join(parts))
