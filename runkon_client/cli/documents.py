"""Values as JSON documents: what `--json` prints.

Instants are RFC 3339 in UTC, spans are seconds, what is not set is null. An event carries its
`kind` first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeAlias

from runkon_client.values import Event

Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | float | bool | None


def document(value: object) -> Json:
    """A value of the client as plain JSON."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return document(value.value)
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): document(each) for key, each in value.items()}
        case list() | tuple():
            return [document(each) for each in value]
        case _ if is_dataclass(value):
            kind: dict[str, Json] = {"kind": str(value.kind)} if isinstance(value, Event) else {}
            return kind | {each.name: document(getattr(value, each.name)) for each in fields(value)}
        case _:
            raise TypeError(f"no JSON form: {type(value).__name__}")


def json_line(value: object) -> str:
    """One line of JSON."""
    return json.dumps(document(value), ensure_ascii=False)
