"""Registries of models, data sets, processors, tasks, scorers, runners and schedules by name.

A class is registered by a decorator and looked up by the name that a config gives::

    @registry.register_model("my_captioner")
    class MyCaptioner(BaseModel): ...

    registry.get_model_class("my_captioner")

The method names are LAVIS's.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:  # the contracts, for annotations only: this module runs below all of them
    from lavis_lite.capfilt.scorers import BaseScorer
    from lavis_lite.common.optim import Schedule
    from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
    from lavis_lite.models.base_model import BaseModel
    from lavis_lite.processors.base_processor import BaseProcessor
    from lavis_lite.runners.runner_base import RunnerBase
    from lavis_lite.tasks.base_task import BaseTask

T = TypeVar("T")
Entry = TypeVar("Entry")


class UnknownNameError(KeyError):
    """A name that nothing is registered under; the message suggests the nearest names."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class DuplicateNameError(ValueError):
    """Two different objects registered under one name."""


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Return up to three of `choices` that resemble `name`, best first."""
    return difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error message about `name`: the nearest of `choices`, and all of them."""
    choices = sorted(choices)
    close = nearest(name, choices)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} Known: {', '.join(choices) or 'none'}."


class Registry(Generic[T]):
    """Named classes (or functions) of one kind.

    Args:
        kind: what error messages call an entry ("model").
        home: packages with the built-in entries, imported when an unknown name is first asked for.
    """

    def __init__(self, kind: str, home: Sequence[str] = ()) -> None:
        self.kind = kind
        self._home = home
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers its object as `name`.

        Raises:
            DuplicateNameError: another object has this name; the message names both.
        """

        def add(entry: Entry) -> Entry:
            owner = self._entries.get(name)
            if owner is not None and _origin(owner) != _origin(entry):
                raise DuplicateNameError(
                    f"{self.kind} {name!r} is registered twice: by {_origin(owner)} and by {_origin(entry)}. "
                    "Rename one of them."
                )
            self._entries[name] = cast(T, entry)  # a subclass keeps its type through the decorator
            return entry

        return add

    def get(self, name: str) -> T:
        """Return the entry registered as `name`.

        Raises:
            UnknownNameError: there is none; the message lists the nearest and all names.
        """
        if name not in self._entries:
            self._import_home()
        if name not in self._entries:
            raise UnknownNameError(
                f"No {self.kind} is called {name!r}.{suggest(name, self._entries)} The names of a plug-in "
                "are known once `imports:` in the run file or --import names it: --import ./projects/shapes."
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        self._import_home()
        return sorted(self._entries)

    def name_of(self, entry: T) -> str:
        """Return the name that `entry` is registered under."""
        return next(name for name, candidate in self._entries.items() if candidate is entry)

    def unregister(self, name: str) -> None:
        """Remove `name` if it is registered."""
        self._entries.pop(name, None)

    def _import_home(self) -> None:
        home, self._home = self._home, ()
        for package in home:
            importlib.import_module(package)


def _origin(entry: object) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"


Model = TypeVar("Model", bound="type[BaseModel]")
Builder = TypeVar("Builder", bound="type[BaseDatasetBuilder]")
Processor = TypeVar("Processor", bound="type[BaseProcessor]")
Task = TypeVar("Task", bound="type[BaseTask]")
Scorer = TypeVar("Scorer", bound="type[BaseScorer]")
Runner = TypeVar("Runner", bound="type[RunnerBase]")


class Registries:
    """One typed `Registry` for each kind of part, and LAVIS's methods for them.

    The methods are written out one by one so that editors and type checkers know what they take
    and return.
    """

    def __init__(self) -> None:
        self.models: Registry[type[BaseModel]] = Registry("model", ("lavis_lite.models",))
        self.builders: Registry[type[BaseDatasetBuilder]] = Registry(
            "dataset builder", ("lavis_lite.datasets.builders",)
        )
        self.processors: Registry[type[BaseProcessor]] = Registry("processor", ("lavis_lite.processors",))
        self.tasks: Registry[type[BaseTask]] = Registry(
            "task", ("lavis_lite.tasks", "lavis_lite.capfilt.capfilt_task")
        )
        self.scorers: Registry[type[BaseScorer]] = Registry("scorer", ("lavis_lite.capfilt.scorers",))
        self.runners: Registry[type[RunnerBase]] = Registry("runner", ("lavis_lite.runners",))
        self.lr_schedulers: Registry[Schedule] = Registry("lr_scheduler", ("lavis_lite.common.optim",))

    def register_model(self, name: str) -> Callable[[Model], Model]:
        """Return a decorator that registers a model class as `name`."""
        return self.models.register(name)

    def get_model_class(self, name: str) -> type[BaseModel]:
        """Return the model class registered as `name`; `UnknownNameError` if there is none."""
        return self.models.get(name)

    def list_models(self) -> list[str]:
        """Return the names of all models."""
        return self.models.names()

    def register_builder(self, name: str) -> Callable[[Builder], Builder]:
        """Return a decorator that registers a dataset builder class as `name`."""
        return self.builders.register(name)

    def get_builder_class(self, name: str) -> type[BaseDatasetBuilder]:
        """Return the dataset builder class registered as `name`; `UnknownNameError` if there is none."""
        return self.builders.get(name)

    def list_datasets(self) -> list[str]:
        """Return the names of all dataset builders."""
        return self.builders.names()

    def register_processor(self, name: str) -> Callable[[Processor], Processor]:
        """Return a decorator that registers a processor class as `name`."""
        return self.processors.register(name)

    def get_processor_class(self, name: str) -> type[BaseProcessor]:
        """Return the processor class registered as `name`; `UnknownNameError` if there is none."""
        return self.processors.get(name)

    def list_processors(self) -> list[str]:
        """Return the names of all processors."""
        return self.processors.names()

    def register_task(self, name: str) -> Callable[[Task], Task]:
        """Return a decorator that registers a task class as `name`."""
        return self.tasks.register(name)

    def get_task_class(self, name: str) -> type[BaseTask]:
        """Return the task class registered as `name`; `UnknownNameError` if there is none."""
        return self.tasks.get(name)

    def list_tasks(self) -> list[str]:
        """Return the names of all tasks."""
        return self.tasks.names()

    def register_scorer(self, name: str) -> Callable[[Scorer], Scorer]:
        """Return a decorator that registers a CapFilt scorer class as `name`."""
        return self.scorers.register(name)

    def get_scorer_class(self, name: str) -> type[BaseScorer]:
        """Return the CapFilt scorer class registered as `name`; `UnknownNameError` if there is none."""
        return self.scorers.get(name)

    def list_scorers(self) -> list[str]:
        """Return the names of all CapFilt scorers."""
        return self.scorers.names()

    def register_runner(self, name: str) -> Callable[[Runner], Runner]:
        """Return a decorator that registers a runner class as `name`."""
        return self.runners.register(name)

    def get_runner_class(self, name: str) -> type[RunnerBase]:
        """Return the runner class registered as `name`; `UnknownNameError` if there is none."""
        return self.runners.get(name)

    def list_runners(self) -> list[str]:
        """Return the names of all runners."""
        return self.runners.names()

    def register_lr_scheduler(self, name: str) -> Callable[[Schedule], Schedule]:
        """Return a decorator that registers a learning-rate schedule as `name`."""
        return self.lr_schedulers.register(name)

    def get_lr_scheduler_class(self, name: str) -> Schedule:
        """Return the learning-rate schedule registered as `name`; `UnknownNameError` if there is none."""
        return self.lr_schedulers.get(name)

    def list_lr_schedulers(self) -> list[str]:
        """Return the names of all learning-rate schedules."""
        return self.lr_schedulers.names()


registry = Registries()
