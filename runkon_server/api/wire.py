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
_SHORT: Final = tuple(bytes([number]) for number in range(_SEVEN_BITS + 1))


def varint(number: int) -> bytes:
    """A number that is not negative."""
    if number <= _SEVEN_BITS:
        return _SHORT[number]
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | _SEVEN_BITS + 1)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag_of(message: Any, field: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:  # noqa: ANN401 - any class of messages
    """What stands before a field's value."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | wire_type)


def element(tag: bytes, data: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    size = len(data)
    return tag + (_SHORT[size] if size <= _SEVEN_BITS else varint(size)) + data
