"""Strict parsing of mappings into dataclasses, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from lavis_lite.common.registry import nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a mapping"}


class ConfigError(ValueError):
    """One or more errors in a config; each line names the key and what to do."""


class _MismatchError(Exception):
    """A value of the wrong type; the message is what was expected."""


def parse(
    config_class: type[C],
    values: Any,
    where: str = "",
    locate: Callable[[str], str] | None = None,
) -> C:
    """Build `config_class` (a dataclass) from the mapping `values`, checking every key and type.

    A class attribute `renamed` of the dataclass (old key -> new key) accepts old names of keys. Its
    method `check()`, if it has one, returns errors about values as ``(key, message)`` pairs.

    Args:
        config_class: the dataclass.
        values: its fields.
        where: key path that stands before each key in messages ("run").
        locate: returns for a key path the file or option that set it.

    Raises:
        ConfigError: all unknown keys, wrong types, missing keys and failed checks.
    """
    errors: list[str] = []
    result = _parse_dataclass(config_class, values, where, errors)
    if errors or result is None:
        raise ConfigError("\n".join(_with_source(error, locate) for error in errors))
    return result


def to_plain(value: Any) -> Any:
    """Return `value` with dataclasses as dicts and tuples as lists, at any depth; the inverse of `parse`."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _with_source(error: str, locate: Callable[[str], str] | None) -> str:
    key_path = error.split(":", 1)[0].split(" ", 1)[0]
    source = locate(key_path) if locate is not None else ""
    return f"{source}: {error}" if source else error


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _parse_dataclass(config_class: type[C], values: Any, where: str, errors: list[str]) -> C | None:
    """Return `config_class` built from `values`; add to `errors` and return None where that fails."""
    if not isinstance(values, Mapping):
        errors.append(f"{where or config_class.__name__}: expected a mapping of settings, found {values!r}.")
        return None
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    hints = typing.get_type_hints(config_class)
    renamed: Mapping[str, str] = getattr(config_class, "renamed", {})
    arguments: dict[str, Any] = {}
    errors_before = len(errors)
    for name, value in values.items():
        key = renamed.get(name, name)
        if key not in fields:
            errors.append(_unknown_key(name, where, [*fields, *renamed]))
        elif key in arguments:
            errors.append(f"{_join(where, name)}: is another name of {key}; set only one of them.")
        else:
            arguments[key] = _convert(value, hints[key], _join(where, name), errors)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            errors.append(f"{_join(where, name)}: is required and has no default; set it.")
    if len(errors) > errors_before:
        return None
    result = config_class(**arguments)
    check = getattr(result, "check", None)
    errors += [f"{_join(where, key)}: {message}" for key, message in (check() if check is not None else ())]
    return result


def _unknown_key(key: object, where: str, known: Sequence[str]) -> str:
    close = nearest(str(key), known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known keys: {', '.join(sorted(known))}."
    return f"{_join(where, str(key))} is not a key of {where or 'this section'}; {hint}"


def _convert(value: Any, hint: Any, where: str, errors: list[str]) -> Any:
    """Return `value` as the type `hint`; add to `errors` and return None where it has another type."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _parse_dataclass(typing.cast(type, hint), value, where, errors)
    try:
        return _convert_plain(value, hint, where, errors)
    except _MismatchError as mismatch:
        errors.append(f"{where}: expected {mismatch}, found {value!r}.")
        return None


def _convert_plain(value: Any, hint: Any, where: str, errors: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, errors)
    if origin is Literal:
        # `True == 1`, so the types are compared too
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        close = nearest(str(value), [str(choice) for choice in arguments])
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise _MismatchError(f"one of {', '.join(str(choice) for choice in arguments)}{suggestion}")
    if origin is list:
        if not isinstance(value, list | tuple):
            raise _MismatchError("a list")
        return [_convert(item, arguments[0], f"{where}[{i}]", errors) for i, item in enumerate(value)]
    if origin is tuple:
        return _convert_tuple(value, arguments, where, errors)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _MismatchError("a mapping")
        return {
            str(key): _convert(item, arguments[1], _join(where, str(key)), errors)
            for key, item in value.items()
        }
    return _convert_scalar(value, hint)


def _convert_union(value: Any, choices: tuple[Any, ...], where: str, errors: list[str]) -> Any:
    expected: list[str] = []
    # exact scalar types first, so that `int | float` keeps an int
    for choice in sorted(choices, key=lambda choice: type(value) is not choice):
        if dataclasses.is_dataclass(choice):
            if isinstance(value, Mapping):
                return _parse_dataclass(typing.cast(type, choice), value, where, errors)
            expected.append("a mapping")
            continue
        attempt: list[str] = []
        try:
            result = _convert_plain(value, choice, where, attempt)
        except _MismatchError as mismatch:
            expected.append(str(mismatch))
            continue
        if not attempt:
            return result
        expected += [error.split(": ", 1)[-1] for error in attempt]
    raise _MismatchError(" or ".join(dict.fromkeys(expected)))


def _convert_tuple(value: Any, hints: tuple[Any, ...], where: str, errors: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _MismatchError(f"a list of {len(hints)} values")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise _MismatchError(f"{len(hints)} values")
    return tuple(
        _convert(item, hint, f"{where}[{i}]", errors)
        for i, (item, hint) in enumerate(zip(value, hints, strict=True))
    )


def _convert_scalar(value: Any, hint: Any) -> Any:
    if hint is type(None):
        if value is None:
            return None
        raise _MismatchError("null")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 2e4 is how people write step counts
    if isinstance(value, hint) and not (isinstance(value, bool) and hint in (int, float)):
        return value
    raise _MismatchError(EXPECTED.get(hint, getattr(hint, "__name__", str(hint))))
