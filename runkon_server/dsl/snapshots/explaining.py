"""Reading a snapshot as one reads a file: with diagnostics about what it says and is not used.

The original's snapshots, and those of its older versions, may hold what has another form here and
what is passed over. A snapshot is one line to no reader's liking, so places are paths such as
`body[2].bot_name`, in the message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runkon_server.dsl import codes
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.parser import ParseResult
from runkon_server.dsl.snapshots.dumping import dump
from runkon_server.dsl.snapshots.loading import load
from runkon_server.dsl.snapshots.records import SnapshotError
from runkon_server.dsl.source import NOWHERE, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.diagnostics import Diagnostic

_WRITTEN_ONLY_IF_SET: Final = frozenset(
    {"approvers", "call_retry_delay", "exclude_starter", "name", "retry_delay"}
)
"""Fields that are read, and yet missing from what is written when they have their default."""
_OLD_IDENTITY: Final = "bot_name"
_IDENTITY: Final = "as_identity"


def read_snapshot(text: str, label: str) -> ParseResult:
    """What a snapshot says, as if it had been parsed. Never raises, whatever the text.

    Args:
        text: the JSON document.
        label: a path or another name for it.
    """
    source = Source(text, label)
    definition = None
    try:
        loaded = load(text)
    except SnapshotError as error:
        found = [_about(codes.SNAPSHOT_UNREADABLE, str(error))]
    else:
        definition = loaded
        found = list(_compare(json.loads(text), json.loads(dump(loaded)), ""))
    return ParseResult(
        definition=definition,
        sketch=definition,
        diagnostics=tuple(found),
        source=source,
        tokens=None,
    )


def _about(code: Code, message: str, hint: str | None = None) -> Diagnostic:
    return diagnostic(code, NOWHERE, message, hint=hint)


def _compare(given: Any, used: Any, path: str) -> Iterator[Diagnostic]:  # noqa: ANN401 - JSON
    """What stands in a document, and otherwise or not at all in what was made of it."""
    match given, used:
        case dict(), dict():
            for key, value in given.items():
                yield from _compare_field(given, used, key, value, f"{path}.{key}".lstrip("."))
        case list(), list():
            for index, (one, other) in enumerate(zip(given, used, strict=False)):
                yield from _compare(one, other, f"{path}[{index}]")
        case list(), dict():
            message = f"`{path}` is a list, as older versions wrote it"
            hint = "each text stands for itself"
            yield _about(codes.OLDER_FORM, message, hint)
        case _:
            pass


def _compare_field(
    given: dict[str, Any], used: dict[str, Any], key: str, value: object, path: str
) -> Iterator[Diagnostic]:
    if key in used:
        yield from _compare(value, used[key], path)
    elif value is None or key in _WRITTEN_ONLY_IF_SET:
        return
    elif key == _OLD_IDENTITY and _IDENTITY in used and given.get(_IDENTITY) is None:
        message = f"`{path}` is the older name of `{_IDENTITY}`"
        yield _about(codes.OLDER_FORM, message, "it is read as such")
    else:
        message = f"`{path}` is not known and has no effect"
        yield _about(codes.IGNORED_FIELD, message)
