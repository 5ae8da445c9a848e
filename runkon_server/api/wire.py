"""Messages put together from parts that are encoded already.

A frame is encoded once for all who read it, and an event once for all frames that it is in. Both
are plain concatenation: an embedded message is its tag, its length and its bytes.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ELEMENT_BYTES", "element", "tag_of", "varint"]

ELEMENT_BYTES: Final = 5
"""What an embedded message of less than 2 MiB weighs besides itself, at most."""
_LENGTH_DELIMITED: Final = 2
_SEVEN_BITS: Final = 0x7F
_MORE: Final = _SEVEN_BITS + 1
"""Set in every byte but the last."""


def _spelled(number: int) -> bytes:
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    out.append(number)
    return bytes(out)


_SPELLED_MAX: Final = 2_048
_SPELLED: Final = tuple(_spelled(number) for number in range(_SPELLED_MAX))
"""Lengths of events and of their texts, and most sequences."""


def varint(number: int) -> bytes:
    """A number that is not negative."""
    return _SPELLED[number] if number < _SPELLED_MAX else _spelled(number)


def tag_of(message: Any, field: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:  # noqa: ANN401 - any class of messages
    """What stands before a field's value."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)


def element(tag: bytes, data: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    size = len(data)
    return tag + (_SPELLED[size] if size < _SPELLED_MAX else _spelled(size)) + data
