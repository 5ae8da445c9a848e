"""A vector of which one element changes at a time, and the vector before is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")
CHUNK: Final = 64


class Vector(Generic[_T]):
    """Two levels: a change copies one chunk and the list of chunks, n/64 + 64 pointers."""

    __slots__ = ("_chunks",)

    def __init__(self, values: Iterable[_T] = ()) -> None:
        flat = tuple(values)
        self._chunks = tuple(flat[n : n + CHUNK] for n in range(0, len(flat), CHUNK))

    def __getitem__(self, index: int) -> _T:
        """The element at an index, from 0."""
        return self._chunks[index // CHUNK][index % CHUNK]

    def __iter__(self) -> Iterator[_T]:
        """All elements, in order."""
        for chunk in self._chunks:
            yield from chunk

    def __eq__(self, other: object) -> bool:
        """Whether it holds the same."""
        return self._chunks == other._chunks if isinstance(other, Vector) else NotImplemented

    def __hash__(self) -> int:
        """By what it holds."""
        return hash(self._chunks)

    def replaced(self, index: int, value: _T) -> Vector[_T]:
        """The vector with another element at an index."""
        number, offset = divmod(index, CHUNK)
        chunk = self._chunks[number]
        changed: Vector[_T] = Vector()
        changed._chunks = (
            *self._chunks[:number],
            (*chunk[:offset], value, *chunk[offset + 1 :]),
            *self._chunks[number + 1 :],
        )
        return changed
