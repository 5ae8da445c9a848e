"""A unary call as a value: its request, how to read its answer, how long it may take.

Both stacks perform the same calls; only the input and output differ. Mutations are given a request
id when the caller has none, which makes repeating them safe.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from google.protobuf.message import Message

_T = TypeVar("_T")
_R = TypeVar("_R", bound="Message")

UNARY_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One unary call; `timeout_s` bounds one attempt."""

    path: str
    request: Message
    read: Callable[[bytes], _T]
    timeout_s: float = UNARY_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """One page of a list; the token is empty on the last."""

    items: tuple[_T, ...]
    next_token: str


def reader(response: type[_R], decode: Callable[[_R], _T]) -> Callable[[bytes], _T]:
    """What makes a value of an answer's bytes."""
    return lambda data: decode(response.FromString(data))


def encode_span(span: timedelta) -> Duration:
    """The span as the contract has it."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def mint_request_id() -> str:
    """An id that no other request has."""
    return uuid.uuid4().hex
