"""Making a failing call smaller: fields go, lists and texts get shorter, as long as it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import text_format

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from google.protobuf.message import Message

    from fuzz._api_requests import Call

TRIES_MAX: Final = 400
LINES_MAX: Final = 200
SHOWN: Final = 2_000


async def shrink(call: Call, fails: Callable[[Call], Awaitable[bool]]) -> Call:
    """The smallest call found that still fails; the call itself if it does not fail again.

    Args:
        fails: makes a call and says whether it fails in the same way.
    """
    tries = 0
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(call):
            tries += 1
            if tries > TRIES_MAX:
                return call
            if await fails(candidate):
                call, is_smaller = candidate, True
                break
    return call


def _smaller(call: Call) -> Iterator[Call]:
    if call.metadata:
        yield replace(call, metadata=())
    for number, message in enumerate(call.messages):
        before, after = call.messages[:number], call.messages[number + 1 :]
        if len(call.messages) > 1:
            yield replace(call, messages=(*before, *after))
        if isinstance(message, bytes):
            for data in _shorter(message):
                yield replace(call, messages=(*before, data, *after))
        else:
            for less in _lesser(message):
                yield replace(call, messages=(*before, less, *after))


def _shorter(text: Any) -> Iterator[Any]:
    """The text without one of its halves, quarters, … characters."""
    size = len(text) // 2
    while size:
        for at in range(0, len(text), size):
            yield text[:at] + text[at + size :]
        size //= 2 if size < 64 else 8


def _lesser(message: Message) -> Iterator[Message]:
    """The message with a field less, or less in one of them."""
    for field, value in message.ListFields():
        less = _copy(message)
        less.ClearField(field.name)
        yield less
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                less = _copy(message)
                del getattr(less, field.name)[key]
                yield less
        elif field.is_repeated:
            yield from _fewer(message, field.name)
        elif field.message_type is not None:
            for inside in _lesser(value):
                less = _copy(message)
                getattr(less, field.name).CopyFrom(inside)
                yield less
        elif isinstance(value, str):
            for text in _shorter(value):
                less = _copy(message)
                setattr(less, field.name, text)
                yield less


def _fewer(message: Message, name: str) -> Iterator[Message]:
    count = len(getattr(message, name))
    for part in {count // 2, 1} - {0}:
        for at in range(0, count, part):
            less = _copy(message)
            del getattr(less, name)[at : at + part]
            yield less
    for at, each in enumerate(getattr(message, name)):
        if hasattr(each, "ListFields"):
            for inside in _lesser(each):
                less = _copy(message)
                getattr(less, name)[at].CopyFrom(inside)
                yield less


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def shown(call: Call) -> str:
    """The call as text that `text_format.Parse` reads, ready for a test; long lines are cut."""
    lines = [f"{call.method.containing_service.full_name}/{call.method.name}"]
    if call.metadata:
        lines.append(f"metadata: {call.metadata!r}")
    for message in call.messages:
        if isinstance(message, bytes):
            lines.append(f"bytes: {message!r}")
        else:
            text = text_format.MessageToString(message, as_utf8=False)
            lines += [f"{message.DESCRIPTOR.full_name} {{", *text.splitlines()[:LINES_MAX], "}"]
    return "\n".join(line if len(line) <= SHOWN else f"{line[:SHOWN]} …cut" for line in lines)
