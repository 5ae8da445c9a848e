"""Which sessions take which tasks: by queue, by name before fallback, in turns.

`Roster.serves` is the one rule; the lines in which sessions wait for their turn, and the claims of
what waits in the table, follow from it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from runkon_server.runtime.providers import PROVIDED
from runkon_server.runtime.sessions import ANY_SCRIPT, EVERYWHERE
from runkon_server.store.queues import EVERY_QUEUE

if TYPE_CHECKING:
    from runkon_server.core.decision import TaskKind
    from runkon_server.runtime.sessions import WorkerSession

KeyT = TypeVar("KeyT")
Offer: TypeAlias = "tuple[str, frozenset[str], TaskKind, frozenset[str], bool]"
"""Namespace, queues, kind, names and whether it is a fallback: equal offers find the same tasks."""


class Need(NamedTuple):
    """What a task asks for, or what a worker offers: then the queue may be every one."""

    namespace: str
    queue: str
    kind: TaskKind
    name: str


def need_of(namespace: str, queue: str, kind: TaskKind, name: str) -> Need:
    """What a task asks for, by the name that sessions are found under."""
    if kind == "script":
        return Need(namespace, queue, kind, ANY_SCRIPT)
    if kind == "items" and name in PROVIDED:
        return Need(EVERYWHERE, queue, kind, name)
    return Need(namespace, queue, kind, name)


def offer_of(session: WorkerSession, kind: TaskKind) -> Offer:
    """What a session takes of one kind of task."""
    return (session.namespace, session.queues, kind, session.offers[kind], session.is_fallback)


class Roster:
    """Sessions by what they serve."""

    def __init__(self) -> None:
        self._named: defaultdict[Need, list[WorkerSession]] = defaultdict(list)
        self._fallbacks: defaultdict[tuple[str, str], list[WorkerSession]] = defaultdict(list)
        """By namespace and queue."""

    def add(self, session: WorkerSession) -> None:
        """A session has come."""
        for need in _offers_of(session):
            self._named[need].append(session)
        if session.is_fallback:
            for queue in session.queues:
                self._fallbacks[session.namespace, queue].append(session)

    def remove(self, session: WorkerSession) -> None:
        """A session that was added is gone."""
        for need in _offers_of(session):
            _drop(self._named, need, session)
        if session.is_fallback:
            for queue in session.queues:
                _drop(self._fallbacks, (session.namespace, queue), session)

    def serves(self, session: WorkerSession, need: Need) -> bool:
        """Whether the session would be given such a task now.

        A fallback is given actions that no session here names in the same queue.
        """
        if need.namespace != session.namespace or not session.serves_queue(need.queue):
            return False
        if need.name in session.offers[need.kind]:
            return True
        return need.kind == "action" and session.is_fallback and not self._named_for(need)

    def is_served(self, need: Need) -> bool:
        """Whether some session would be given such a task."""
        return bool(self._lines_for(need))

    def next_with_credit(self, need: Need) -> WorkerSession | None:
        """The session whose turn it is; it moves to the end of its line.

        Those of the task's own queue go before those of every queue, which can do other work.
        """
        for line in self._lines_for(need):
            for index, session in enumerate(line):
                if session.credit > 0:
                    line.append(line.pop(index))
                    return session
        return None

    def named_beside(self, session: WorkerSession, kind: TaskKind) -> list[tuple[str, str]]:
        """Queue and name of what sessions serve by name where this one would be their fallback."""
        return [
            (need.queue, need.name)
            for need in self._named
            if need.namespace == session.namespace
            and need.kind == kind
            and (session.serves_queue(need.queue) or need.queue == EVERY_QUEUE)
        ]

    def _lines_for(self, need: Need) -> list[list[WorkerSession]]:
        named = self._named_for(need)
        if named or need.kind != "action":
            return named
        places = ((need.namespace, need.queue), (need.namespace, EVERY_QUEUE))
        return [self._fallbacks[place] for place in places if place in self._fallbacks]

    def _named_for(self, need: Need) -> list[list[WorkerSession]]:
        needs = (need, need._replace(queue=EVERY_QUEUE))
        return [self._named[each] for each in needs if each in self._named]


def _offers_of(session: WorkerSession) -> list[Need]:
    return [
        Need(session.namespace, queue, kind, name)
        for queue in session.queues
        for kind, names in session.offers.items()
        for name in names
    ]


def _drop(table: defaultdict[KeyT, list[WorkerSession]], key: KeyT, session: WorkerSession) -> None:
    table[key].remove(session)
    if not table[key]:
        del table[key]
