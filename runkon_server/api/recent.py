"""Events at hand: what streams of this replica were told or have read lately, encoded once.

An event never changes, so nothing here can be out of date; what is missing is read again. Only a
fail-over to a standby that lacks the last events changes the log: then all of it is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from runkon.v1 import runs_pb2
from runkon_server.api.encoding import encode_event
from runkon_server.api.wire import element, tag_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = [
    "PAGE_BYTES",
    "PAGE_EVENTS",
    "Entry",
    "FreshEvents",
    "RecentEvents",
    "StoredEvent",
    "encoded",
]

PAGE_EVENTS: Final = 256
PAGE_BYTES: Final = 1024 * 1024
"""Most that one frame carries; a single event is far smaller."""
_EVENTS: Final = tag_of(runs_pb2.EventBatch, "events")
_ENTRY_BYTES: Final = 512
"""What an entry weighs besides its payload."""


class StoredEvent(Protocol):
    """A row of `run_events`, from the committer or from the table."""

    @property
    def run_id(self) -> str:
        """Whose event it is."""

    @property
    def seq(self) -> int:
        """1, 2, 3 … per run."""

    @property
    def epoch(self) -> int:
        """From 1."""

    @property
    def kind(self) -> str:
        """One of `core.events.KINDS`."""

    @property
    def at(self) -> datetime:
        """When it was recorded."""

    @property
    def generation(self) -> int:
        """Changes of hands so far."""

    @property
    def payload(self) -> str:
        """JSON text."""


def encoded(event: StoredEvent) -> bytes:
    """The event as an element of an `EventBatch`, with its tag and length."""
    return element(_EVENTS, encode_event(event))


class Entry:
    """One event, encoded when the first stream needs it and kept for the others."""

    __slots__ = ("_data", "_record", "epoch", "kind", "seq", "weight")

    def __init__(self, record: StoredEvent) -> None:
        self.seq = record.seq
        self.epoch = record.epoch
        self.kind = record.kind
        self.weight = _ENTRY_BYTES + 2 * len(record.payload)
        self._record = record
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The event as an element of an `EventBatch`, with its tag and length."""
        if self._data is None:
            self._data = encoded(self._record)
        return self._data

    @property
    def payload(self) -> str:
        """JSON text."""
        return self._record.payload


class RecentEvents:
    """Entries by run and sequence, the oldest dropped when all together weigh too much.

    Args:
        budget: bytes that the entries may take, about.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._weight = 0
        self._entries: OrderedDict[tuple[str, int], Entry] = OrderedDict()

    def add(self, records: Sequence[StoredEvent]) -> list[Entry]:
        """Keep events; gives their entries, those that were there before among them."""
        added = []
        for record in records:
            key = (record.run_id, record.seq)
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = Entry(record)
                self._weight += entry.weight
            added.append(entry)
        while self._weight > self._budget:
            _, dropped = self._entries.popitem(last=False)
            self._weight -= dropped.weight
        return added

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._weight = 0

    def has(self, run_id: str, seq: int) -> bool:
        """Whether this very event is at hand."""
        return (run_id, seq) in self._entries

    def above(self, run_id: str, seq: int) -> list[Entry]:
        """Entries directly above `seq`, without gaps, at most a page; [] if the next is missing."""
        found: list[Entry] = []
        while len(found) < PAGE_EVENTS:
            seq += 1
            entry = self._entries.get((run_id, seq))
            if entry is None:
                break
            found.append(entry)
        return found


class FreshEvents:
    """Events of runs that nobody follows, as they were told, the oldest runs dropped first.

    This is done for every event of the replica, most of which nobody ever asks for: so they
    are not looked at one by one.

    Args:
        budget: bytes that they may take, about.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._weight = 0
        self._told: OrderedDict[str, list[tuple[Sequence[StoredEvent], int]]] = OrderedDict()

    def add(self, run_id: str, records: Sequence[StoredEvent]) -> None:
        """Keep events of a run."""
        weight = _ENTRY_BYTES * len(records) + 2 * sum([len(each.payload) for each in records])
        self._told.setdefault(run_id, []).append((records, weight))
        self._weight += weight
        while self._weight > self._budget:
            _, dropped = self._told.popitem(last=False)
            self._weight -= sum([each for _, each in dropped])

    def take(self, run_id: str) -> list[StoredEvent]:
        """The events of a run, in order, which are no longer kept here."""
        taken = self._told.pop(run_id, ())
        self._weight -= sum([weight for _, weight in taken])
        return [record for records, _ in taken for record in records]

    def clear(self) -> None:
        """Forget everything."""
        self._told.clear()
        self._weight = 0
