"""config.yaml of a run: written with everything resolved, read as plain data, as it may be untrusted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, atomic_writer, first_line, open_regular

FILE_NAME = "config.yaml"
MAX_BYTES = 1 << 20  # a config has some kilobytes
MAX_VALUES = 100_000  # with every alias counted as often as it is used
MAX_DEPTH = 50


class _PlainLoader(yaml.SafeLoader):
    """Plain values, numbers as OmegaConf reads them, no merge keys, whose copies could take all memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not allowed here")


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _PlainDumper(yaml.SafeDumper):
    """Values that occur twice are written twice, for people to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_saved_config(sections: Mapping[str, Any], path: Path) -> None:
    """Write the resolved config of a run.

    The user's own files that lie in the run folder are named relative to it, so that the folder can move.
    """
    home = path.parent.resolve()
    imports = [_relative_to(home, name) for name in sections.get("imports") or []]
    text = yaml.dump(
        {**sections, "imports": imports}, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True
    )
    with atomic_writer(path, "w") as file:
        file.write(text)


def read_saved_config(path: Path) -> dict[str, Any]:
    """Return the config of a run as plain values; ``${...}`` in it is not resolved.

    Raises:
        ConfigError: missing, damaged, too large, or not the sections of a config.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FileError as error:
        raise ConfigError(str(error)) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES} bytes, which no config of a run is.")
    try:
        config = yaml.load(content.decode("utf-8"), Loader=_PlainLoader)
    except RecursionError as error:
        raise ConfigError(f"{path}: the file is damaged (nested too deeply).") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: the file is damaged: it is not valid yaml ({reason}).") from error
    return check_saved_config(config, str(path))


def check_saved_config(config: Any, source: str) -> dict[str, Any]:
    """Return `config` if it has the form of a run's config.

    Raises:
        ConfigError: it does not; `source` is named.
    """
    for name in ("model", "run", "datasets"):
        section = config.get(name) if isinstance(config, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(
                f"{source}: the file is damaged: the section {name!r} is missing or no mapping."
            )
    for count, (key, _) in enumerate(leaves(config)):
        if count > MAX_VALUES or key.count(".") >= MAX_DEPTH:
            raise ConfigError(
                f"{source}: the file is damaged: it holds more values than any config of a run."
            )
    if not isinstance(config["model"].get("arch"), str):
        raise ConfigError(f"{source}: the file is damaged: model.arch is missing.")
    return config


def refuse_interpolations(config: Mapping[str, Any], source: str) -> None:
    """Refuse a saved config with ``${...}`` in it, where it is about to be resolved.

    Raises:
        ConfigError: the key is named.
    """
    for key, value in leaves(config):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{source}: {key} is {first_line(value)!r}; the config of a run holds values only, and "
                "${...} in it is not resolved. Write the value itself."
            )


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every value inside nested mappings and lists with its key path; lists and mappings too."""
    yield path, value
    if depth > MAX_DEPTH:
        return
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        yield from leaves(item, f"{path}.{key}" if path else str(key), depth + 1)


def is_saved_config(path: Path) -> bool:
    """Return whether `path` is the config.yaml of a run folder, and not a run file that somebody wrote."""
    folder = path.parent
    return path.name == FILE_NAME and ((folder / "checkpoints").is_dir() or (folder / "log.jsonl").is_file())


def _relative_to(home: Path, name: str) -> str:
    path = Path(name)
    if not (path.is_absolute() and path.is_relative_to(home)):
        return name
    relative = str(path.relative_to(home))
    return relative if name.endswith(".py") else f"./{relative}"  # a slash makes it a path
