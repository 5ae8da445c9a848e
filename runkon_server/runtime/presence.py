"""Which workers are connected to this replica, told to all replicas by way of the database.

Coming, going and polling only change a table in memory. It is written by a loop that asks the
database something anyway, in one statement: soon after a change, else a few times per lease. Tasks
are handed out without any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server.failpoints import failpoint_async
from runkon_server.store import presence
from runkon_server.store.presence import Seen, WorkerPresence

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import WorkerHello
    from runkon_server.runtime.sessions import WorkerSession
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.store.presence import Name

POLLER_TTL_S: Final = 60.0
"""How long a worker that polls counts as connected after a poll began or ended."""
REFRESHES_PER_TTL: Final = 3
NAMES_MAX: Final = 20_000
"""Offers in one statement, but for those of its last worker: at most some 3 MB."""


@dataclass(slots=True)
class _Entry:
    hello: WorkerHello
    session: WorkerSession | None
    """None: it polls."""
    connected_s: float
    """On the clock of `Ambient.boottime_s`, as is `seen_s`."""
    seen_s: float
    is_written: bool = False


class Presence:
    """The workers of one replica.

    Args:
        owner_token: of this start of the replica.
        replica_id: its name for people.
    """

    def __init__(
        self, config: EngineConfig, ambient: Ambient, owner_token: str, replica_id: str
    ) -> None:
        self._ttl_s = config.lease_ttl_s
        self._ambient = ambient
        self._owner_token = owner_token
        self._replica_id = replica_id
        self._entries: dict[Name, _Entry] = {}
        self._closed: set[Name] = set()
        self._has_changed = False
        self._next_s = 0.0

    def opened(self, session: WorkerSession) -> None:
        """A worker has opened a stream; the last one of its name counts."""
        now_s = self._ambient.boottime_s()
        self._put(_Entry(session.hello, session, now_s, now_s))

    def closed(self, session: WorkerSession) -> None:
        """A stream is gone. Those of polls, and of the server itself, are not known here."""
        name = _name_of(session.hello)
        entry = self._entries.get(name)
        if entry is not None and entry.session is session:
            self._drop(name)

    def polled(self, hello: WorkerHello) -> None:
        """A poll of a worker has begun or ended."""
        entry = self._entries.get(_name_of(hello))
        now_s = self._ambient.boottime_s()
        if entry is None:
            self._put(_Entry(hello, None, now_s, now_s))
        elif entry.session is None:
            entry.seen_s = now_s
            if entry.hello != hello:
                self._put(_Entry(hello, None, entry.connected_s, now_s))

    def _put(self, entry: _Entry) -> None:
        name = _name_of(entry.hello)
        self._entries[name] = entry
        self._closed.discard(name)
        self._has_changed = True

    def _drop(self, name: Name) -> None:
        del self._entries[name]
        self._closed.add(name)
        self._has_changed = True

    async def publish(self, conn: AsyncConnection) -> None:
        """Write what has changed, or that all are still there, if it is time for either."""
        now_s = self._ambient.boottime_s()
        if not self._has_changed and now_s < self._next_s:
            return
        self._drop_silent(now_s)
        kept = [entry for entry in self._entries.values() if entry.is_written]
        closed = frozenset(self._closed)
        added = self._some_unwritten()
        found = await presence.publish(
            conn,
            token=self._owner_token,
            replica=self._replica_id,
            added=[self._presence(entry, now_s) for entry in added],
            kept=[self._seen(entry, now_s) for entry in kept],
            closed=closed,
        )
        await failpoint_async("presence.published")
        for entry in added:
            entry.is_written = True
        for entry in kept:
            entry.is_written = _name_of(entry.hello) in found
        # What came or went meanwhile is a change for the next time.
        self._closed -= closed
        self._has_changed = bool(self._closed) or not all(
            entry.is_written for entry in self._entries.values()
        )
        self._next_s = now_s + self._ttl_s / REFRESHES_PER_TTL

    async def withdraw(self, conn: AsyncConnection) -> None:
        """Take all of them off the list: the replica stops."""
        await presence.withdraw(conn, token=self._owner_token)

    def _drop_silent(self, now_s: float) -> None:
        for name, entry in list(self._entries.items()):
            if entry.session is None and now_s - entry.seen_s > POLLER_TTL_S:
                self._drop(name)

    def _some_unwritten(self) -> list[_Entry]:
        found, names = [], 0
        for entry in self._entries.values():
            if names >= NAMES_MAX:
                break
            if not entry.is_written:
                found.append(entry)
                hello = entry.hello
                offers = len(hello.actions) + len(hello.item_providers) + len(hello.gate_types)
                names += offers + len(hello.queues)
        return found

    def _since(self, entry: _Entry, now_s: float) -> tuple[float, float]:
        """Seconds since it was seen, and until it counts as gone."""
        if entry.session is not None:
            return 0.0, self._ttl_s
        seen_s = max(0.0, now_s - entry.seen_s)
        return seen_s, POLLER_TTL_S - seen_s

    def _seen(self, entry: _Entry, now_s: float) -> Seen:
        namespace, worker_id = _name_of(entry.hello)
        seen_s, expires_s = self._since(entry, now_s)
        return Seen(namespace=namespace, worker_id=worker_id, seen_s=seen_s, expires_s=expires_s)

    def _presence(self, entry: _Entry, now_s: float) -> WorkerPresence:
        hello = entry.hello
        seen_s, expires_s = self._since(entry, now_s)
        return WorkerPresence(
            namespace=hello.namespace,
            worker_id=hello.worker_id,
            seen_s=seen_s,
            expires_s=expires_s,
            client=hello.client,
            queues=sorted(hello.queues),
            actions=sorted(hello.actions),
            item_providers=sorted(hello.item_providers),
            gate_types=sorted(hello.gate_types),
            scripts=hello.scripts,
            concurrency=hello.concurrency,
            polls=entry.session is None,
            connected_s=max(0.0, now_s - entry.connected_s),
        )


def _name_of(hello: WorkerHello) -> Name:
    return hello.namespace, hello.worker_id
