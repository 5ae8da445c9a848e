"""What no server takes, told here: gRPC would say of it that a message is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_client.errors import Code, InvalidArgumentError, ResourceExhaustedError, Violation
from runkon_client.values import Diagnostic, Severity

if TYPE_CHECKING:
    from google.protobuf.message import Message

MESSAGE_BYTES_MAX: Final = 4 << 20
"""What fits a message in either direction; a test compares it with the server's."""

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


def refuse_unsendable(request: Message) -> None:
    """Let pass what fits a message.

    Raises:
        InvalidArgumentError: DSL_LIMIT, because of the source in it.
        ResourceExhaustedError: because of anything else.
    """
    size = request.ByteSize()
    if size <= MESSAGE_BYTES_MAX:
        return
    refuse_too_large(getattr(request, "source", ""))
    raise ResourceExhaustedError(
        f"the request has {size:,} bytes and was not sent: a message holds at most"
        f" {MESSAGE_BYTES_MAX:,} (4 MiB)",
        code=Code.RESOURCE_EXHAUSTED,
    )
