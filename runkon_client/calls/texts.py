"""Refusing what no message can hold, with its name: gRPC's own words would not name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def require_fields(values: DataclassInstance) -> None:
    """Refuse a dataclass whose texts, or mappings of texts, are none.

    Which fields these are is told by what they are by default: empty.

    Raises:
        TypeError: a field is something else.
    """
    for field in fields(values):
        if field.default == "":
            require_text(field.name, getattr(values, field.name))
        elif field.default_factory is dict:
            require_texts(field.name, getattr(values, field.name))


def require_text(name: str, value: object) -> None:
    """Refuse what is no text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, not {value!r}")


def require_texts(name: str, values: object) -> None:
    """Refuse what is no mapping of texts.

    Raises:
        TypeError: it is none; the text names the key.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a mapping of texts, not {values!r}")
    for key, value in values.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(
                f"{name} is a mapping of texts: {key!r} is {value!r}; "
                "`json.dumps` makes a text of anything"
            )


def require_many(name: str, values: object) -> None:
    """Refuse a text where several are asked for: it would be read letter by letter.

    Raises:
        TypeError: it is a text.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} is a sequence, such as [{values!r}]")
