"""Who calls: until callers can prove it, the metadata `runkon-principal`.

It is believed only on a connection that cannot come from another machine; there the caller could
do as much harm without it. Everybody else is `anonymous`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from runkon_server.errors import InvalidArgumentError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ANONYMOUS",
    "METADATA_KEY",
    "Caller",
    "Identity",
    "LocalIdentity",
    "current_principal",
    "is_local_peer",
    "principal_of",
    "set_principal",
]

METADATA_KEY: Final = "runkon-principal"
ANONYMOUS: Final = "anonymous"
LENGTH_MAX: Final = 256
_LOCAL_PEERS: Final = ("unix:", "unix-abstract:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")

_principal: ContextVar[str] = ContextVar("principal", default=ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and by what it is known."""

    principal: str
    peer: str
    """gRPC's name for the other end, such as `ipv4:127.0.0.1:4711`."""
    credentials: str = ""
    """Names what the caller proved itself with, never a secret; equal for all calls with it."""
    until_s: float | None = None
    """When that runs out, on the clock of `Ambient.boottime_s`; None if it does not."""
    is_admin: bool = False
    """Whether the caller may operate the system, not only use it."""


class Identity(Protocol):
    """Knows who calls. Whoever makes callers prove themselves puts another in its place."""

    def identify(self, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Caller:
        """The caller of a call; raises a `RunkonError` if it may not call at all."""

    async def still_holds(self, caller: Caller) -> bool:
        """Whether the caller would still be let in; asked of those with long streams."""


class LocalIdentity:
    """Believes callers on this machine, who are administrators, and takes nothing back."""

    def identify(self, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Caller:
        """The caller that the metadata names.

        Raises:
            InvalidArgumentError: the name is too long or holds what cannot be printed.
        """
        return Caller(principal_of(metadata, peer), peer, is_admin=is_local_peer(peer))

    async def still_holds(self, caller: Caller) -> bool:
        """Always."""
        return True


def is_local_peer(peer: str) -> bool:
    """Whether gRPC's name for the other end is one that only this machine can have."""
    return peer.startswith(_LOCAL_PEERS)


def principal_of(metadata: Iterable[tuple[str, str | bytes]], peer: str) -> str:
    """The principal of a call.

    Args:
        metadata: of the invocation.
        peer: gRPC's name for the other end, such as `ipv4:127.0.0.1:4711`.

    Raises:
        InvalidArgumentError: the name is too long or holds what cannot be printed.
    """
    given = [value for key, value in metadata if key == METADATA_KEY]
    if not given or not is_local_peer(peer):
        return ANONYMOUS
    name = given[-1]
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    if not 0 < len(name) <= LENGTH_MAX or not name.isprintable():
        expected = f"1 to {LENGTH_MAX} printable characters"
        raise InvalidArgumentError([Violation(METADATA_KEY, f"must have {expected}")])
    return name


def set_principal(name: str) -> None:
    """From here on, this task works for the principal."""
    _principal.set(name)


def current_principal() -> str:
    """On whose behalf the current call is made."""
    return _principal.get()
