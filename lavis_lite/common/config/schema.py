"""Strict parsing of mappings into dataclasses, with errors a person can act on."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from lavis_lite.common.registry import nearest

T = TypeVar("T")


class ConfigError(ValueError):
    """One or more faults in a config, each with its place and its remedy."""


class _MismatchError(Exception):
    """A value that does not fit; the text says what was expected."""


def parse(
    config_class: type[T],
    values: Mapping[str, Any],
    where: str = "",
    locate: Callable[[str], str] | None = None,
) -> T:
    """Build `config_class` (a dataclass) from `values`, checking every key and type.

    All faults are collected into one error. A class attribute `renamed` of the dataclass
    (old key -> new key) lets keys of the past in under their new name. A method `check()`,
    if the dataclass has one, returns further complaints as ``(key, text)`` pairs.

    Args:
        where: key path that stands before each key in messages ("run").
        locate: tells for a key path which file or option set it.

    Raises:
        ConfigError: unknown keys, wrong types, missing keys, failed checks.
    """
    faults: list[str] = []
    result = _parse_dataclass(config_class, values, where, faults)
    if faults:
        raise ConfigError("\n".join(_with_place(fault, locate) for fault in faults))
    return result


def _with_place(fault: str, locate: Callable[[str], str] | None) -> str:
    if locate is None:
        return fault
    place = locate(fault.split(":", 1)[0].split(" ", 1)[0])
    return f"{place}: {fault}" if place else fault


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _parse_dataclass(config_class: type[T], values: Any, where: str, faults: list[str]) -> T | None:
    if not isinstance(values, Mapping):
        faults.append(f"{where or config_class.__name__}: expected a mapping of settings, found {values!r}.")
        return None
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    hints = typing.get_type_hints(config_class)
    renamed: Mapping[str, str] = getattr(config_class, "renamed", {})
    arguments: dict[str, Any] = {}
    faults_before = len(faults)
    for given_key, value in values.items():
        key = renamed.get(given_key, given_key)
        if key not in fields:
            faults.append(_unknown_key(given_key, where, [*fields, *renamed]))
        elif key in arguments:
            faults.append(f"{_join(where, given_key)}: is another name of {key}; set only one of them.")
        else:
            arguments[key] = _convert(value, hints[key], _join(where, given_key), faults)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            faults.append(f"{_join(where, name)}: is required and has no default; set it.")
    if len(faults) > faults_before:
        return None
    result = config_class(**arguments)
    if hasattr(result, "check"):
        faults += [f"{_join(where, key)}: {text}" for key, text in result.check()]
    return result


def _unknown_key(key: str, where: str, known: Sequence[str]) -> str:
    close = nearest(str(key), known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known keys: {', '.join(sorted(known))}."
    return f"{_join(where, key)} is not a key of {where or 'this section'}; {hint}"


def _convert(value: Any, hint: Any, where: str, faults: list[str]) -> Any:
    """Return `value` as the type `hint` asks for; add to `faults` where it is not one."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _parse_dataclass(hint, value, where, faults)
    try:
        return _convert_plain(value, hint, where, faults)
    except _MismatchError as mismatch:
        faults.append(f"{where}: expected {mismatch}, found {value!r}.")
        return None


def _convert_plain(value: Any, hint: Any, where: str, faults: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, faults)
    if origin is Literal:
        # `True == 1`, so the type is compared too
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        close = nearest(str(value), [str(choice) for choice in arguments])
        hint_text = f" (did you mean {close[0]}?)" if close else ""
        raise _MismatchError(f"one of {', '.join(str(choice) for choice in arguments)}{hint_text}")
    if origin is list:
        if not isinstance(value, list | tuple):
            raise _MismatchError("a list")
        return [_convert(item, arguments[0], f"{where}[{i}]", faults) for i, item in enumerate(value)]
    if origin is tuple:
        return _convert_tuple(value, arguments, where, faults)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _MismatchError("a mapping")
        return {
            str(key): _convert(item, arguments[1], _join(where, key), faults) for key, item in value.items()
        }
    return _convert_scalar(value, hint)


def _convert_union(value: Any, choices: tuple[Any, ...], where: str, faults: list[str]) -> Any:
    expected: list[str] = []
    # exact scalar types first, so that `int | float` keeps an int
    for choice in sorted(choices, key=lambda choice: type(value) is not choice):
        attempt: list[str] = []
        if dataclasses.is_dataclass(choice):
            if isinstance(value, Mapping):
                return _parse_dataclass(choice, value, where, faults)
            expected.append("a mapping")
            continue
        try:
            result = _convert_plain(value, choice, where, attempt)
        except _MismatchError as mismatch:
            expected.append(str(mismatch))
            continue
        if not attempt:
            return result
        expected += [fault.split(": ", 1)[-1] for fault in attempt]
    raise _MismatchError(" or ".join(dict.fromkeys(expected)))


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str, faults: list[str]) -> tuple:
    if not isinstance(value, list | tuple):
        raise _MismatchError(f"a list of {len(arguments)} values")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise _MismatchError(f"{len(arguments)} values")
    return tuple(
        _convert(item, hint, f"{where}[{i}]", faults)
        for i, (item, hint) in enumerate(zip(value, arguments, strict=True))
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
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        dict: "a mapping",
    }
    raise _MismatchError(names.get(hint, getattr(hint, "__name__", str(hint))))
