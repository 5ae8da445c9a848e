"""The streams that are open on this replica: how many each caller may have, and whether still.

A unary call is over before anybody could lose the right to make it; a stream lives for hours. So
who has one open is looked at again every minute, and when the credentials run out: once per
credentials, however many streams are open with them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import structlog

from runkon_server.api.identity import ANONYMOUS
from runkon_server.errors import CredentialsRevokedError, StreamLimitError

if TYPE_CHECKING:
    from runkon_server.api.identity import Caller, Identity
    from runkon_server.errors import RunkonError
    from runkon_server.runtime.ambient import Ambient

__all__ = ["OpenStream", "OpenStreams", "StreamLimits"]

log = structlog.get_logger(__name__)

RECHECK_S: Final = 60.0
_SHARED_PEERS: Final = ("unix:", "unix-abstract:")
"""Peers whose name tells nothing about the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How many event streams may be open at a time."""

    per_connection: int = 32
    """Not counted on Unix sockets, whose connections have no names."""
    per_principal: int = 200
    """Not counted for callers without a name, of whom nobody knows how many they are."""


class OpenStream:
    """One stream under way, as long as its context."""

    __slots__ = ("_among", "_is_counted", "caller", "failure", "task")

    def __init__(
        self,
        among: OpenStreams,
        caller: Caller,
        task: asyncio.Task[object] | None,
        *,
        is_counted: bool,
    ) -> None:
        self._among = among
        self._is_counted = is_counted
        self.caller = caller
        self.task = task
        self.failure: RunkonError | None = None
        """Why it was ended from here."""

    def __enter__(self) -> Self:
        self._among.add(self, self._counted())
        return self

    def __exit__(self, *_: object) -> None:
        self._among.discard(self, self._counted())

    def _counted(self) -> tuple[str, str]:
        """The peer and the principal among whose streams it is; empty where none are counted."""
        caller = self.caller
        is_named = self._is_counted and caller.principal != ANONYMOUS
        is_shared = not self._is_counted or caller.peer.startswith(_SHARED_PEERS)
        return "" if is_shared else caller.peer, caller.principal if is_named else ""

    def end(self, failure: RunkonError) -> None:
        """Cancel its task; whoever catches that answers with the failure."""
        if self.failure is None and self.task is not None:
            self.failure = failure
            self.task.cancel()


class OpenStreams:
    """See the module.

    Args:
        identity: knows whether credentials still hold.
        limits: of streams at a time.
        recheck_s: seconds between two looks at everybody.
    """

    def __init__(
        self,
        identity: Identity,
        limits: StreamLimits | None = None,
        *,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self.identity = identity
        self._limits = limits or StreamLimits()
        self._recheck_s = recheck_s
        self._open: set[OpenStream] = set()
        self._by_peer: Counter[str] = Counter()
        self._by_principal: Counter[str] = Counter()

    def admit(self, caller: Caller, *, is_counted: bool) -> OpenStream:
        """Let a caller have a stream, of the current task, as long as the context lasts.

        To enter the context raises StreamLimitError if there are too many already.

        Args:
            is_counted: whether it is one of those that are limited.
        """
        return OpenStream(self, caller, asyncio.current_task(), is_counted=is_counted)

    def add(self, stream: OpenStream, counted: tuple[str, str]) -> None:
        """A stream begins; for `OpenStream` only."""
        peer, principal = counted
        _check("this connection", self._by_peer[peer], self._limits.per_connection, peer)
        _check(principal, self._by_principal[principal], self._limits.per_principal, principal)
        self._open.add(stream)
        self._by_peer[peer] += 1
        self._by_principal[principal] += 1

    def discard(self, stream: OpenStream, counted: tuple[str, str]) -> None:
        """It has ended; for `OpenStream` only."""
        self._open.discard(stream)
        for counter, key in zip((self._by_peer, self._by_principal), counted, strict=True):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    async def follow(self, ambient: Ambient) -> None:
        """Look again at those who listen; never returns."""
        while True:
            await ambient.sleep(self._pause_s(ambient.boottime_s()))
            await self.recheck(ambient.boottime_s())

    def _pause_s(self, now_s: float) -> float:
        # Those that were told to end are on their way; to look for them again would be to spin.
        ends = [stream.caller.until_s for stream in self._open if stream.failure is None]
        soonest = min((end for end in ends if end is not None), default=None)
        if soonest is None:
            return self._recheck_s
        return min(self._recheck_s, max(0.0, soonest - now_s))

    async def recheck(self, now_s: float) -> None:
        """End the streams of those who may not listen any more.

        Args:
            now_s: on the ambient's clock.
        """
        verdicts: dict[str, bool] = {}
        for stream in list(self._open):
            caller = stream.caller
            if caller.until_s is not None and caller.until_s <= now_s:
                stream.end(CredentialsRevokedError(caller.principal))
                continue
            if caller.credentials not in verdicts:
                verdicts[caller.credentials] = await self._holds(caller)
            if not verdicts[caller.credentials]:
                stream.end(CredentialsRevokedError(caller.principal))

    async def _holds(self, caller: Caller) -> bool:
        try:
            return await self.identity.still_holds(caller)
        except Exception as error:  # noqa: BLE001 - whatever a provider of identity may raise
            # Who cannot be asked about has not been revoked: the next look is in a minute.
            log.warning("identity.recheck_failed", principal=caller.principal, reason=str(error))
            return True


def _check(subject: str, count: int, limit: int, key: str) -> None:
    if key and count >= limit:
        raise StreamLimitError(subject, limit=limit)
