"""The user's own modules: imported where the user names them, never because a run folder does."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import Registry, registry

logger = logging.getLogger(__name__)


def import_modules(names: Iterable[str], relative_to: Path | None = None) -> list[str]:
    """Import the user's own modules.

    Args:
        names: dotted names, paths of .py files, or paths of folders with an ``__init__.py``. A path of
            a folder has a slash in it (``./my_plugin``).
        relative_to: the folder of the run file. A relative path is looked for there first, then in the
            working directory.

    Returns:
        The names, with paths made absolute.

    Raises:
        ConfigError: a file, folder or module that does not exist, or a name that is not text.
    """
    folders = [*([relative_to] if relative_to is not None else []), Path()]
    located = []
    for name in check_names(names, "imports"):
        path = _locate(name, folders)
        if path is None:
            what = "file" if name.endswith(".py") else "folder with an __init__.py"
            raise ConfigError(f"imports: no {what} {name!r}, neither beside the run file nor here.")
        located.append(path)
    for name in located:
        _import(name)
    return located


def import_saved_modules(
    names: Iterable[str], folder: Path, trust_imports: bool, config: Mapping[str, Any]
) -> list[str]:
    """Import the modules that a run folder names, if the caller allows it.

    Nothing is imported, and no permission is needed, where every name in `config` is registered
    already or where this process has imported the modules before.

    Args:
        names: as `import_modules` takes them; a relative path starts at `folder`.
        folder: the run folder.
        trust_imports: run the code that the folder names.
        config: the sections that will be used.

    Returns:
        The names, with paths made absolute. A path that does not exist is left out and logged.

    Raises:
        ConfigError: modules that are needed but neither imported nor trusted.
    """
    names = check_names(names, f"{folder}: imports")
    located = [path for name in names if (path := _locate(name, [folder])) is not None]
    not_found = missing_files(names, folder)
    to_import = [path for path in located if not is_imported(path)]
    if not trust_imports:
        needed_for = unregistered_names(config)
        if not needed_for:
            return located
        if to_import or not_found:
            modules = ", ".join([*to_import, *(f"{name} (no such file)" for name in not_found)])
            raise ConfigError(
                f"{folder}: the config of this run imports {modules}, which would run that code here; it is "
                f"needed for {', '.join(map(repr, needed_for))}. If you trust it, pass trust_imports=True "
                "(--trust-imports on the command line), or import the module yourself first (in Python, or "
                "with --import)."
            )
    for name in to_import:
        _import(name)
    for name in not_found:
        logger.warning("%s: the config of this run imports %s; there is no such file.", folder, name)
    return located


def unregistered_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names in `config` (model, data sets, processors, task, ...) that are not registered."""
    looked_up = [(kind, name) for kind, name in _names_to_look_up(config) if isinstance(name, str)]
    return list(dict.fromkeys(name for kind, name in looked_up if name not in kind.names()))


def _names_to_look_up(config: Mapping[str, Any]) -> Iterator[tuple[Registry[Any], Any]]:
    """Yield each name in a config, which may be malformed, behind the registry it is looked up in."""
    yield registry.models, _mapping(config.get("model")).get("arch")
    datasets = _mapping(config.get("datasets"))
    for name in datasets:
        yield registry.builders, name
    for section in (config.get("preprocess"), *datasets.values()):
        for processor in ("vis_processor", "text_processor"):
            for settings in _mapping(_mapping(section).get(processor)).values():
                yield registry.processors, _mapping(settings).get("name")
    run = _mapping(config.get("run"))
    yield registry.tasks, run.get("task")
    yield registry.runners, run.get("runner")
    yield registry.lr_schedulers, run.get("lr_sched")
    for name in _mapping(run.get("scorers")):
        yield registry.scorers, name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def missing_files(names: Iterable[str], folder: Path) -> list[str]:
    """Return those of `names` that are paths and do not exist; relative ones start at `folder`."""
    return [name for name in names if _locate(name, [folder]) is None]


def check_names(names: object, where: str) -> list[str]:
    """Return `names` if it is a list of texts.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(
            f"{where}: expected a list of module names, .py files and package folders, got {names!r}."
        )
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(
                f"{where}: expected the name of a module, .py file or package folder, got {name!r}."
            )
    return list(names)


def is_imported(name: str) -> bool:
    """Return whether this process has imported a module, named by dots or by its real path."""
    if not _is_path(name):
        return name in sys.modules
    file = _file_of(Path(name)).resolve()
    return any(_is_file_of(module, file) for module in list(sys.modules.values()))


def _is_file_of(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or Path(file).name != path.name:
        return False
    return Path(file).resolve() == path


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or name.startswith("~")


def _file_of(path: Path) -> Path:
    """Return the file that importing `path`, a .py file or a package folder, runs first."""
    return path if path.suffix == ".py" else path / "__init__.py"


def _locate(name: str, folders: Sequence[Path]) -> str | None:
    """Return a dotted name as it is and a path as a real path; None if there is no such file."""
    if not _is_path(name):
        return name
    relative = Path(name)
    if relative.name == "__init__.py":
        relative = relative.parent
    try:
        candidates = [folder / relative.expanduser() for folder in folders]
        return next((str(path.resolve()) for path in candidates if _file_of(path).is_file()), None)
    except (OSError, RuntimeError, ValueError):  # too long a name, no home folder, a zero byte
        return None


def _import(name: str) -> None:
    if is_imported(name):
        return
    if _is_path(name):
        _import_path(Path(name))
        return
    try:
        importlib.import_module(name)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        missing = getattr(error, "name", name)
        if missing is not None and name.startswith(missing):
            raise ConfigError(
                f"imports: no module {name!r}; name an installed module, a path that ends in .py, or a "
                "folder with an __init__.py as ./folder."
            ) from error
        raise


def _import_path(path: Path) -> None:
    # The same name in every process, so that its classes can be pickled for data workers.
    stem = re.sub(r"\W", "_", path.stem)
    module_name = f"lavis_lite_user_{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, _file_of(path))
    if spec is None or spec.loader is None:
        raise ConfigError(f"imports: {path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # Or a second attempt would take the half-imported module for the whole one.
        for partial in [name for name in sys.modules if f"{name}.".startswith(f"{module_name}.")]:
            del sys.modules[partial]
        raise
