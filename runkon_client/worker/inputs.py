"""The text inputs of a task as a typed value."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cache, reduce
from operator import or_
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

from runkon_client.worker.actions import FinalError

INPUT_INVALID: Final = "INPUT_INVALID"
_BOOLEANS: Final = {"true": True, "false": False}
_T = TypeVar("_T")


class _Field(typing.NamedTuple):
    type: Any
    is_required: bool


class _UnfitError(Exception):
    """A value that is not of its type; the text says what it should be."""


def read_inputs(values: Mapping[str, str], wanted: type[_T]) -> _T:
    """A dataclass or TypedDict out of the values of the same names; all others are left alone.

    Fields may be `str`, `int`, `float`, `Decimal`, `bool` (`true` or `false`), `date` and
    `datetime` (ISO 8601), enums (by value), literals, and optional ones of these, for which an
    empty text is None. Anything else, such as `list[int]`, another dataclass or a `dict`, is read
    from JSON text.

    Raises:
        FinalError: values are missing or do not fit, all of which are named; another attempt would
            get the same ones.
        TypeError: `wanted` is neither a dataclass nor a TypedDict.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in _fields_of(typing.cast("Hashable", wanted)).items():
        if name not in values:
            if field.is_required and not _is_optional(field.type):
                problems.append(f"`{name}` is missing")
            elif field.is_required:
                found[name] = None
            continue
        try:
            found[name] = _read(values[name], field.type)
        except _UnfitError as reason:
            problems.append(f"`{name}` {reason}, not {_quoted(values[name])}")
    if problems:
        raise FinalError(f"inputs: {'; '.join(problems)}", code=INPUT_INVALID)
    return wanted(**found)


@cache
def _fields_of(wanted: Hashable) -> dict[str, _Field]:
    hints = typing.get_type_hints(wanted)
    if dataclasses.is_dataclass(wanted):
        return {
            each.name: _Field(
                hints[each.name],
                each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
            )
            for each in dataclasses.fields(wanted)
            if each.init
        }
    if is_typeddict(wanted):
        hints = typing.get_type_hints(wanted, include_extras=True)
        return {name: _key(wanted, name, hint) for name, hint in hints.items()}
    raise TypeError(f"{wanted!r} is neither a dataclass nor a TypedDict")


def _key(wanted: Any, name: str, hint: Any) -> _Field:  # noqa: ANN401 - a TypedDict, any annotation
    """A key of a TypedDict, which knows of `NotRequired` only where annotations are no texts."""
    marked = get_origin(hint)
    if marked in (typing.Required, typing.NotRequired):
        return _Field(get_args(hint)[0], marked is typing.Required)
    return _Field(hint, name in wanted.__required_keys__)


def _is_optional(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _read(text: str, hint: Any) -> Any:  # noqa: ANN401 - any annotation, any value
    """A text as a value of a type."""
    if hint in (str, Any):
        return text
    if hint in _READERS:
        kind, read = _READERS[hint]
        try:
            return read(text.strip())
        except (ValueError, KeyError, OverflowError, InvalidOperation):
            raise _UnfitError(f"must be {kind}") from None
    if _is_optional(hint):
        rest = [each for each in get_args(hint) if each is not type(None)]
        if not text:
            return None
        return _read(text, rest[0] if len(rest) == 1 else reduce(or_, rest))
    if get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return _choose(text, hint)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _UnfitError("must be JSON") from None
    return _fit(value, hint)


def _fit(value: Any, hint: Any) -> Any:  # noqa: ANN401 - one case for each kind of type
    """A value of JSON as a value of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for each in arguments:
            try:
                return _fit(value, each)
            except _UnfitError:
                continue
        raise _UnfitError(f"must be {_name(hint)}")
    if hint is type(None) and value is None:
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # JSON has whole numbers of any size
            raise _UnfitError("must be a number") from None
    if hint in (str, int, float, bool) and type(value) is hint:
        return value
    if hint in _READERS and isinstance(value, str) and hint not in (int, float, bool):
        return _read(value, hint)
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return _choose(value, hint)
    if (origin or hint) in (list, tuple, Sequence) and isinstance(value, list):
        return _fit_elements(value, origin or hint, arguments)
    if (origin or hint) in (dict, Mapping) and isinstance(value, dict):
        of = arguments[1] if arguments else Any
        return {key: _fit(each, of) for key, each in value.items()}
    if (dataclasses.is_dataclass(hint) or is_typeddict(hint)) and isinstance(value, dict):
        return _fit_object(value, hint)
    raise _UnfitError(f"must be {_name(hint)}")


def _fit_elements(value: list[Any], kind: Any, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a list or tuple
    of = arguments[0] if arguments else Any
    elements = [_fit(each, of) for each in value]
    return tuple(elements) if kind is tuple else elements


def _fit_object(value: dict[str, Any], wanted: Any) -> Any:  # noqa: ANN401 - a dataclass or TypedDict
    found = {}
    for name, field in _fields_of(wanted).items():
        if name in value:
            found[name] = _fit(value[name], field.type)
        elif field.is_required and _is_optional(field.type):
            found[name] = None
        elif field.is_required:
            raise _UnfitError(f"must have `{name}`")
    return wanted(**found)


def _choose(value: Any, hint: Any) -> Any:  # noqa: ANN401 - a literal's or enum's value
    choices = (
        {each: each for each in get_args(hint)}
        if get_origin(hint) is Literal
        else {each.value: each for each in hint}
    )
    for known, choice in choices.items():
        if value == known or (isinstance(value, str) and value == str(known)):
            return choice
    raise _UnfitError(f"must be one of {', '.join(map(str, choices))}")


def _name(hint: Any) -> str:  # noqa: ANN401 - any annotation
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")  # noqa: PLR2004 - fits a line


_READERS: Final[dict[Any, tuple[str, Callable[[str], Any]]]] = {
    bool: ("`true` or `false`", lambda text: _BOOLEANS[text.lower()]),
    int: ("a whole number", int),
    float: ("a number", float),
    Decimal: ("a number", Decimal),
    date: ("a date such as 2026-11-23", date.fromisoformat),
    datetime: ("an instant such as 2026-11-23T10:00:00Z", datetime.fromisoformat),
    timedelta: ("a number of seconds", lambda text: timedelta(seconds=float(text))),
}
