"""JSON objects with typed access; every failure says where in the document it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from runkon_server.dsl import limits
from runkon_server.dsl.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import StrEnum

    from runkon_server.dsl.ast import Pairs
    from runkon_server.dsl.durations import Duration

_Word = TypeVar("_Word", bound="StrEnum")
_U64_MAX: Final = 2**64 - 1
_REQUIRED: Final = object()


class SnapshotError(ValueError):
    """The text is not the snapshot of a definition."""


class Record:
    """One JSON object.

    A default of None also makes JSON's null acceptable; without a default a field must be there.
    """

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise SnapshotError(f"{path or 'the document'} must be an object")
        self._fields: dict[str, Any] = value
        self.path = path

    def __contains__(self, key: str) -> bool:
        return self._fields.get(key) is not None

    def fail(self, key: str, message: str) -> SnapshotError:
        """An error about one field, to be raised."""
        return SnapshotError(f"{self._path(key)} {message}")

    def raw(self, key: str) -> object:
        """Any JSON value; None if the field is missing."""
        return self._fields.get(key)

    def text(self, key: str) -> str:
        """A text that must be there."""
        value = self._fields.get(key)
        if not isinstance(value, str):
            raise self.fail(key, "must be a text")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A text that may be null or missing."""
        return self.text(key) if key in self else None

    def number(
        self, key: str, default: object = _REQUIRED, *, at_most: int = limits.U32_MAX
    ) -> int:
        """A whole number from 0 on."""
        value = self._fields.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= at_most:
            raise self.fail(key, f"must be a whole number up to {at_most}")
        return value

    def number_or_none(self, key: str, *, at_most: int = limits.U32_MAX) -> int | None:
        """A whole number that may be null or missing."""
        return self.number(key, at_most=at_most) if key in self else None

    def seconds(self, key: str) -> int:
        """A number of seconds."""
        return self.number(key, at_most=_U64_MAX)

    def flag(self, key: str, default: object = _REQUIRED) -> bool:
        """True or false."""
        value = self._fields.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "must be true or false")
        return value

    def word(self, key: str, choices: type[_Word], default: _Word | None = None) -> _Word:
        """One of a fixed set of words."""
        value = self._fields.get(key, default)
        words = {str(choice): choice for choice in choices}
        if not isinstance(value, str) or value not in words:
            raise self.fail(key, f"must be one of {', '.join(words)}")
        return words[value]

    def duration_or_none(self, key: str) -> Duration | None:
        """A duration as its author wrote it."""
        text = self.text_or_none(key)
        duration = None if text is None else parse_duration(text)
        if text is not None and duration is None:
            raise self.fail(key, "must be a duration")
        return duration

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty if the field is missing."""
        return texts(self._fields.get(key, []), self._path(key))

    def pairs(self, key: str) -> Pairs:
        """A map of texts; empty if the field is missing."""
        return pairs(self._fields.get(key, {}), self._path(key))

    def pairs_or_none(self, key: str) -> Pairs | None:
        """A map of texts that may be null or missing."""
        return self.pairs(key) if key in self else None

    def record(self, key: str) -> Record:
        """An object that must be there."""
        return Record(self._fields.get(key), self._path(key))

    def records(self, key: str) -> Iterator[Record]:
        """A list of objects that must be there."""
        values = self._fields.get(key)
        if not isinstance(values, list):
            raise self.fail(key, "must be a list")
        for index, value in enumerate(values):
            yield Record(value, f"{self._path(key)}[{index}]")

    def by_index(self, key: str, count: int) -> Record:
        """A map whose keys are the indexes of a list of `count` elements."""
        found = Record(self._fields.get(key, {}), self._path(key))
        indexes = {str(index) for index in range(count)}
        for index in found._fields:
            if index not in indexes:
                raise self.fail(key, f"has an entry {index!r} for no call")
        return found

    def _path(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def texts(value: object, path: str) -> tuple[str, ...]:
    """A list of texts found at `path`."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SnapshotError(f"{path} must be a list of texts")
    return tuple(value)


def pairs(value: object, path: str) -> Pairs:
    """A map of texts found at `path`."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise SnapshotError(f"{path} must be an object of texts")
    return tuple(value.items())
