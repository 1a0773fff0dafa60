"""The user's own modules: imported where the user names them, never because a folder from elsewhere does."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from lavis_lite.common.config.schema import ConfigError

logger = logging.getLogger(__name__)


def import_modules(names: Iterable[str], relative_to: Path | None = None) -> list[str]:
    """Import the user's own modules: dotted names, or paths of .py files.

    A relative path is looked for from the working directory, then beside the run file.

    Args:
        relative_to: the folder of the run file.

    Returns:
        The names, with paths made absolute.

    Raises:
        ConfigError: a file or module that does not exist, or a name that is no text.
    """
    folders = [Path(), *([relative_to] if relative_to is not None else [])]
    located = []
    for name in check_names(names, "imports"):
        place = _located(name, folders)
        if place is None:
            raise ConfigError(f"imports: no file {name!r}, neither here nor beside the run file.")
        located.append(place)
    for name in located:
        _import(name)
    return located


def import_saved_modules(names: Iterable[str], folder: Path, trust_imports: bool) -> list[str]:
    """Import the modules that the config of a run folder names, if the caller allows it.

    A module that this process has imported already is no question of trust: nothing is run.

    Args:
        names: dotted names, or paths of .py files; a relative path starts at `folder`.
        folder: the run folder.
        trust_imports: run the code that the folder names.

    Returns:
        The names, with paths made absolute. A file that does not exist is left out and named in the log.

    Raises:
        ConfigError: modules that are neither imported nor trusted, all named.
    """
    names = check_names(names, f"{folder}: imports")
    located = [place for name in names if (place := _located(name, [folder])) is not None]
    absent = missing_files(names, folder)
    wanted = [place for place in located if not is_imported(place)]
    if (wanted or absent) and not trust_imports:
        modules = ", ".join([*wanted, *(f"{name} (no such file)" for name in absent)])
        raise ConfigError(
            f"{folder}: the config of this run imports {modules}, which would run that code here. "
            "If you trust it, pass trust_imports=True (--trust-imports on the command line), or import the "
            "module yourself first (in Python, or with --import)."
        )
    for name in wanted:
        _import(name)
    for name in absent:
        logger.warning("%s: the config of this run imports %s; there is no such file.", folder, name)
    return located


def missing_files(names: Iterable[str], folder: Path) -> list[str]:
    """Return those of `names` that are paths of files which do not exist, relative ones below `folder`."""
    return [name for name in names if _located(name, [folder]) is None]


def check_names(names: object, where: str) -> list[str]:
    """Return `names` if it is a list of texts.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(f"{where}: expected a list of module names and .py files, found {names!r}.")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{where}: expected the name of a module or of a .py file, found {name!r}.")
    return list(names)


def is_imported(name: str) -> bool:
    """Return whether this process has imported a module, named by dots or by the real path of its file."""
    if not name.endswith(".py"):
        return name in sys.modules
    return any(_is_file_of(module, Path(name)) for module in list(sys.modules.values()))


def _is_file_of(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or Path(file).name != path.name:
        return False
    return Path(file).resolve() == path


def _located(name: str, folders: Sequence[Path]) -> str | None:
    """Return a dotted name as it is and a path as the real path of its file; None if there is no file."""
    if not name.endswith(".py"):
        return name
    try:
        candidates = [folder / Path(name).expanduser() for folder in folders]
        return next((str(path.resolve()) for path in candidates if path.is_file()), None)
    except (OSError, RuntimeError, ValueError):  # too long a name, no home folder, a zero byte
        return None


def _import(name: str) -> None:
    if is_imported(name):
        return
    if name.endswith(".py"):
        _import_file(Path(name))
        return
    try:
        importlib.import_module(name)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        absent = getattr(error, "name", name)
        if absent is not None and name.startswith(absent):
            raise ConfigError(
                f"imports: no module {name!r}; name an installed module or a path that ends in .py."
            ) from error
        raise


def _import_file(path: Path) -> None:
    # The same name in every process, so that its classes can be pickled for data workers.
    module_name = f"lavis_lite_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"imports: {path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]  # or a second attempt would take the half of it for imported
        raise
