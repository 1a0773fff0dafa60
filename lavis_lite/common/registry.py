"""Where models, data sets, processors, tasks, runners and schedules meet by name.

A class enters with a decorator and is found by its name from a config::

    @registry.register_model("my_captioner")
    class MyCaptioner(BaseModel): ...

    registry.get_model_class("my_captioner")

The method names are LAVIS's. All of them are made from one table, `KINDS`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that nothing is registered under; the message names the nearest."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class DuplicateNameError(ValueError):
    """Two owners for one name."""


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Return up to three of `choices` that `name` may have been meant for, best first."""
    return difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)


def suggest(name: str, choices: Iterable[str]) -> str:
    """Say which valid choice `name` was probably meant for, as the end of an error message."""
    choices = sorted(choices)
    close = nearest(name, choices)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} Known: {', '.join(choices) or 'none'}."


class Registry(Generic[T]):
    """Named classes (or functions) of one kind.

    Args:
        kind: what an entry is, as error messages call it ("model").
        home: packages that hold our own entries, imported when a name is first missed.
    """

    def __init__(self, kind: str, home: Sequence[str] = ()) -> None:
        self.kind = kind
        self._home = home
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under `name`.

        Raises:
            DuplicateNameError: another object holds the name; both are named.
        """

        def add(entry: T) -> T:
            owner = self._entries.get(name)
            if owner is not None and _origin(owner) != _origin(entry):
                raise DuplicateNameError(
                    f"{self.kind} {name!r} is registered twice: by {_origin(owner)} and by {_origin(entry)}. "
                    "Rename one of them."
                )
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            UnknownNameError: there is none; the message lists the nearest and all names.
        """
        if name not in self._entries:
            self._import_home()
        if name not in self._entries:
            raise UnknownNameError(f"No {self.kind} is called {name!r}.{suggest(name, self._entries)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        self._import_home()
        return sorted(self._entries)

    def name_of(self, entry: T) -> str:
        """Return the name that `entry` is registered under."""
        return next(name for name, candidate in self._entries.items() if candidate is entry)

    def unregister(self, name: str) -> None:
        """Forget `name`, if it is there."""
        self._entries.pop(name, None)

    def _import_home(self) -> None:
        home, self._home = self._home, ()
        for package in home:
            importlib.import_module(package)


def _origin(entry: object) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"


# kind -> (home packages, name of the listing method where LAVIS departs from list_<kind>s)
KINDS: dict[str, tuple[str, str]] = {
    "model": ("lavis_lite.models", "list_models"),
    "builder": ("lavis_lite.datasets.builders", "list_datasets"),
    "processor": ("lavis_lite.processors", "list_processors"),
    "task": ("lavis_lite.tasks lavis_lite.capfilt.capfilt_task", "list_tasks"),
    "scorer": ("lavis_lite.capfilt.scorers", "list_scorers"),
    "runner": ("lavis_lite.runners", "list_runners"),
    "lr_scheduler": ("lavis_lite.common.optim", "list_lr_schedulers"),
}


class Registries:
    """One `Registry` a kind, with LAVIS's method names for each.

    For every kind in `KINDS` there are `register_<kind>(name)`, `get_<kind>_class(name)` and
    `list_<kind>s()` (`list_datasets()` for builders); `kinds["model"]` is the registry itself.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, Registry] = {}
        for kind, (home, list_name) in KINDS.items():
            registered = self.kinds[kind] = Registry(kind.replace("builder", "dataset builder"), home.split())
            setattr(self, f"register_{kind}", registered.register)
            setattr(self, f"get_{kind}_class", registered.get)
            setattr(self, list_name, registered.names)


registry = Registries()
