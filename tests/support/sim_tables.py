"""The model of the database: rows in dictionaries, row locks, transactions that end in three ways.

It knows what the statements of `store` mean, not how PostgreSQL executes them; whether the two
agree is what the tests of the store are for. A transaction keeps its writes to itself until COMMIT,
which applies all of them or, where a unique key forbids one, none.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg.errors

from runkon_server.verify.evidence import LoggedEvent, Ownership, RunEvidence

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Iterator

Row = dict[str, Any]
Lock = tuple[str, ...]
TIMELINE: Final = 1
"""Of the server; nobody is promoted here."""
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_MISSING: Final = object()


class Transaction:
    """What one session has locked and wants to write."""

    __slots__ = ("claimed", "keys", "locks", "since_s", "writes", "xid")

    def __init__(self, xid: str, since_s: float) -> None:
        self.xid = xid
        self.since_s = since_s
        """When its session was last heard of."""
        self.locks: set[Lock] = set()
        self.writes: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.claimed: dict[tuple[str, str], Row] = {}
        self.keys: dict[tuple[str, str], str] = {}


class Tables:
    """All rows, all transactions, and the clock by which the database judges."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.runs: dict[str, Row] = {}
        self.details: dict[str, Row] = {}
        self.steps: dict[str, Row] = {}
        self.items: dict[str, Row] = {}
        self.tasks: dict[str, Row] = {}
        self.timers: dict[str, Row] = {}
        self.gates: dict[str, Row] = {}
        self.votes: dict[tuple[str, str], Row] = {}
        self.events: dict[tuple[str, int], LoggedEvent] = {}
        self.written_by: dict[tuple[str, int], str] = {}
        """(run id, seq) → xid."""
        self.facts: dict[tuple[str, int], Row] = {}
        self.requests: dict[tuple[str, str], Row] = {}
        self.run_keys: dict[tuple[str, str], str] = {}
        self.definitions: dict[tuple[str, str], Row] = {}
        self.workflows: dict[tuple[str, str], tuple[int, str]] = {}
        """(namespace, name) → number and content hash of the newest version."""
        self.ownership: list[Ownership] = []
        self.taken_inside_always = 0
        """How often a run changed hands in its always section."""
        self.gone: set[str] = set()
        """Owners whose sessions have ended."""
        self.outcomes: dict[str, str | None] = {}
        """xid → `committed`, `aborted` or `in progress`; None: no longer known."""
        self.changed: set[str] = set()
        """Runs that a commit touched since somebody last looked."""
        self.of_run: dict[str, dict[str, dict[Any, Any]]] = {}
        """Run → table → key → row: the same rows once more, for reads of one run."""
        self._open: dict[str, Transaction] = {}
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._journal: list[tuple[dict[Any, Any], Any, Any]] | None = None
        self._is_waiting_for_the_disk = True
        self._unflushed: list[tuple[dict[Any, Any], Any, Any]] = []
        """What a crash takes back: table, key and the row before, in the order of the log."""

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return _EPOCH + timedelta(seconds=self.elapsed_s)

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> Transaction:
        """Open a transaction."""
        tx = Transaction(str(len(self.outcomes) + 1), self.elapsed_s)
        self.outcomes[tx.xid] = "in progress"
        self._open[tx.xid] = tx
        return tx

    def is_free(self, locks: Iterable[Lock], tx: Transaction | None = None) -> bool:
        """Whether no other transaction holds one of the locks."""
        wanted = set(locks)
        return all(other is tx or other.locks.isdisjoint(wanted) for other in self._open.values())

    def wait(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """What is done once some transaction has ended."""
        future = loop.create_future()
        self._waiting.append((loop, future))
        return future

    def commit(self, tx: Transaction) -> None:
        """Make its writes durable, all of them.

        Raises:
            psycopg.errors.UniqueViolation: none of them.
        """
        self._journal = []
        before = set(self.events)
        try:
            for write, parameters in tx.writes:
                write(*parameters)
        except psycopg.errors.UniqueViolation:
            for table, key, old in reversed(self._journal):
                _restore(table, key, old)
            self._end(tx, "aborted")
            raise
        finally:
            self._journal = None
        self.written_by |= dict.fromkeys(self.events.keys() - before, tx.xid)
        self._end(tx, "committed")

    def roll_back(self, tx: Transaction) -> None:
        """Forget its writes."""
        if tx.xid in self._open:
            self._end(tx, "aborted")

    def end_idle(self, timeout_s: float) -> None:
        """End the transactions whose sessions have not said anything for so long."""
        for tx in list(self._open.values()):
            if self.elapsed_s - tx.since_s > timeout_s:
                self.roll_back(tx)

    def is_open(self, tx: Transaction) -> bool:
        """Whether the transaction has neither ended nor been ended."""
        return tx.xid in self._open

    @contextmanager
    def not_waiting_for_the_disk(self) -> Iterator[None]:
        """What is written herein is durable as soon as something else is that was written later."""
        self._is_waiting_for_the_disk = False
        try:
            yield
        finally:
            self._is_waiting_for_the_disk = True

    def crash(self) -> int:
        """End every transaction, and forget what is not on the disk; gives how much that was."""
        for tx in list(self._open.values()):
            self.roll_back(tx)
        lost, self._unflushed = self._unflushed, []
        for table, key, old in reversed(lost):
            _restore(table, key, old)
        return len(lost)

    def _end(self, tx: Transaction, outcome: str) -> None:
        del self._open[tx.xid]
        self.outcomes[tx.xid] = outcome
        waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            if not loop.is_closed():
                loop.call_soon(_wake, future)

    # -- rows ------------------------------------------------------------------------------------

    def put(self, table: dict[Any, Any], key: Any, row: Any, run_id: str | None = None) -> None:
        """Insert or replace a row."""
        self._note(table, key)
        table[key] = row
        if run_id is not None:
            self.changed.add(run_id)

    def insert(self, table: dict[Any, Any], key: Any, row: Any, run_id: str | None = None) -> None:
        """Insert a row.

        Raises:
            psycopg.errors.UniqueViolation: there is one.
        """
        if key in table:
            raise psycopg.errors.UniqueViolation(str(key))
        self.put(table, key, row, run_id)

    def remove(self, table: dict[Any, Any], key: Any) -> None:
        """Delete a row, if it is there."""
        if key in table:
            self._note(table, key)
            del table[key]

    def _note(self, table: dict[Any, Any], key: Any) -> None:
        if not self._is_waiting_for_the_disk:
            self._unflushed.append((table, key, table.get(key, _MISSING)))
            return
        self._unflushed.clear()
        if self._journal is not None:
            self._journal.append((table, key, table.get(key, _MISSING)))

    def took(self, run: Row, why: str) -> None:
        """A replica has taken a run."""
        self.changed.add(run["id"])
        if run["phase"] == "always":
            self.taken_inside_always += 1
        self.ownership.append(
            Ownership(
                run_id=run["id"],
                generation=run["generation"],
                token=run["owner_token"],
                at=self.elapsed_s,
                why=why,
            )
        )

    # -- what was seen ---------------------------------------------------------------------------

    def evidence_of(self, run_ids: Collection[str]) -> dict[str, RunEvidence]:
        """Everything about these runs."""
        wanted = set(run_ids)
        found: dict[str, dict[str, list[Any]]] = {run_id: {} for run_id in wanted & set(self.runs)}
        tables: dict[str, Iterable[tuple[str, Any]]] = {
            "steps": ((row["workflow_run_id"], row) for row in self.steps.values()),
            "items": ((row["workflow_run_id"], row) for row in self.items.values()),
            "gates": ((row["run_id"], row) for row in self.gates.values()),
            "votes": ((row["run_id"], row) for row in self.votes.values()),
            "tasks": ((row["run_id"], row) for row in self.tasks.values()),
            "timers": ((row["run_id"], row) for row in self.timers.values()),
            "facts": ((row["run_id"], row) for row in self.facts.values()),
            "events": ((run_id, event) for (run_id, _), event in self.events.items()),
        }
        for table, rows in tables.items():
            for run_id, row in rows:
                if run_id in found:
                    found[run_id].setdefault(table, []).append(row)
        for rows_of in found.values():
            rows_of.get("events", []).sort(key=lambda event: event.seq)
        return {
            run_id: RunEvidence(
                run_id=run_id, row={**self.details[run_id], **self.runs[run_id]}, **rows_of
            )
            for run_id, rows_of in found.items()
        }


def _restore(table: dict[Any, Any], key: Any, old: Any) -> None:
    if old is _MISSING:
        table.pop(key, None)
    else:
        table[key] = old


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
