"""JSON that workers wrote: read strictly, and within limits that every later reader can take."""

from __future__ import annotations

import json
import math
from typing import Final, NoReturn

JSON_DEPTH_MAX: Final = 64
INVALID: Final = "OUTPUT_INVALID"
"""`error_code` of a step whose output cannot be read, or does not match its schema."""
LIMIT: Final = "OUTPUT_LIMIT"
"""`error_code` of a step whose output is too large in some way."""


class OutputError(Exception):
    """An output cannot be used.

    Attributes:
        code: `INVALID` or `LIMIT`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_json(text: str) -> object:
    """The value of a JSON text.

    Raises:
        OutputError: no JSON, nested too deep, or texts in it that no database takes.
    """
    try:
        value: object = _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as reason:
        raise OutputError(INVALID, f"no JSON: {reason}") from None
    if text.count("[") + text.count("{") > JSON_DEPTH_MAX and _depth(value) > JSON_DEPTH_MAX:
        raise _too_deep()
    if "\\u" in text or not text.isascii() or "\0" in text:
        _check_texts(value)
    return value


def write_json(value: object) -> str:
    """Compact JSON text."""
    return _ENCODER.encode(value)


def _check_texts(value: object) -> None:
    plain = write_json(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise OutputError(INVALID, "half of a surrogate pair in a text") from None
    # Of all ways to write NUL, this is the only one that the encoder uses; `\\u0000` is a text.
    if "\\u0000" in plain.replace("\\\\", ""):
        raise OutputError(INVALID, "a NUL character in a text")


def _depth(value: object) -> int:
    """How deep lists and objects are nested; stops counting beyond the limit."""
    level: list[object] = [value]
    depth = 0
    while depth <= JSON_DEPTH_MAX:
        nested = [each for each in level if isinstance(each, dict | list)]
        if not nested:
            break
        depth += 1
        level = [
            inner
            for each in nested
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _too_deep() -> OutputError:
    return OutputError(LIMIT, f"nested more than {JSON_DEPTH_MAX} deep")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
