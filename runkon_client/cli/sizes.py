"""Sources that no server takes, told here: many of them would not even fit a message to one."""

from __future__ import annotations

from typing import Final

from runkon_client.errors import Code, InvalidArgumentError, Violation
from runkon_client.values import Diagnostic, Severity

SOURCE_BYTES: Final = 256 * 1024
"""What a server takes before it says WF402; a test compares the two."""
_CODE: Final = "WF402"
_MESSAGE: Final = f"the source is larger than {SOURCE_BYTES // 1024} KiB"
_HINT: Final = "move parts of it into workflows of their own and use `call workflow`"
_EXCERPT_CHARACTERS: Final = 100


def too_large(source: str) -> Diagnostic | None:
    """What `runkon check` and a server say of a source of this size; None if it may be sent."""
    size = len(source)
    if size <= SOURCE_BYTES and not source.isascii():
        size = len(source.encode())
    if size <= SOURCE_BYTES:
        return None
    first = source.partition("\n")[0][:_EXCERPT_CHARACTERS].expandtabs(1)
    return Diagnostic(
        code=_CODE,
        severity=Severity.ERROR,
        message=_MESSAGE,
        hint=_HINT,
        line=1,
        column=1,
        end_line=1,
        end_column=1,
        length=1,
        excerpt=f"    1 | {first}\n      | ^",
    )


def refuse_too_large(source: str) -> None:
    """Let pass what may be sent.

    Raises:
        InvalidArgumentError: DSL_LIMIT, as a server would say it.
    """
    problem = too_large(source)
    if problem is None:
        return
    described = f"{problem.code}: {problem.message} ({problem.hint})"
    raise InvalidArgumentError(
        f"source:1:1: {described}",
        code=Code.INVALID_ARGUMENT,
        reason="DSL_LIMIT",
        violations=(Violation("source:1:1", described),),
    )
