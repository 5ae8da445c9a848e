"""Sessions with the model: what a replica sees of the database, and how it fails.

The fate of the next COMMIT is chosen from outside (`Faults`): it is answered; the session breaks
before it takes effect; or after; or the old backend is still about to decide when its session has
gone, so that whoever asks too early does not know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self, cast

import psycopg
import psycopg.errors

from runkon_server.store import hints
from runkon_server.store.fates import Fate as Found
from support.sim_reads import CLAIMS, LOCKS, READS, locks_of
from support.sim_writes import WRITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from runkon_server.store.pipeline import Statement
    from support.sim_tables import Tables, Transaction

LATE_QUESTIONS: Final = 2
"""How often a transaction without a session is asked about before its backend has decided."""


class Fate(StrEnum):
    """What becomes of a COMMIT."""

    ANSWERED = "answered"
    LOST_BEFORE = "lost before"
    """It has not arrived: rolled back."""
    LOST_AFTER = "lost after"
    """Committed, without an answer."""
    LATE = "late"
    """Committed some time after the session broke."""
    LATE_ABORT = "late abort"
    """The same, rolled back."""
    FORGOTTEN = "forgotten"
    """Committed without an answer, and the database no longer knows of the transaction."""
    CONFLICT = "conflict"
    """Refused as a serialization failure; the session lives."""


class Faults:
    """What the database will do wrong, and what it is asked to hint."""

    def __init__(self) -> None:
        self.fates: deque[Fate] = deque()
        """Of the commits to come; then all are answered."""
        self.is_away = False
        self.late: dict[str, tuple[Transaction, int, bool]] = {}
        """xid → transaction, questions until it is decided, whether it commits."""
        self.seen: Callable[[Fate], None] = lambda _: None
        self.notify: Callable[[str], None] = lambda _: None

    def require_database(self) -> None:
        """Fail while it is away.

        Raises:
            psycopg.OperationalError: see there.
        """
        if self.is_away:
            raise psycopg.OperationalError("the database is away")


class Session:
    """A connection of its own: what `Pipeline` is to the committer, to hints and to claims."""

    def __init__(self, tables: Tables, faults: Faults) -> None:
        self._tables = tables
        self._faults = faults
        self._tx: Transaction | None = None
        self.is_lost = False
        self.opening: tuple[Statement, ...] = (("BEGIN", ()),)

    async def close(self) -> None:
        """End the session; its transaction is rolled back, unless its fate is open."""
        self.is_lost = True
        if self._tx is not None:
            self._tables.roll_back(self._tx)
            self._tx = None

    def break_off(self) -> None:
        """The server has ended it; whoever uses it learns that."""
        self._tx, self.is_lost = None, True

    async def run(
        self,
        statements: Iterable[Statement],
        *,
        executed: Callable[[], None] | None = None,
        behind: Statement | None = None,
    ) -> list[list[tuple[Any, ...]]]:
        """One round trip."""
        sent = list(statements)
        await asyncio.sleep(0)  # on its way
        if sent[0][0] == "BEGIN":
            await self._begin(sent)
        rows = [self._execute(sql, parameters) for sql, parameters in sent]
        if behind is not None:
            statement, (payloads, *_) = cast("tuple[str, tuple[Any, ...]]", behind)
            assert statement == hints.SEND_BEHIND
            for payload in payloads:
                self._faults.notify(payload)
        await asyncio.sleep(0)  # on its way back
        self._require()
        if executed is not None:
            executed()
        return rows

    def _require(self) -> None:
        """Fail if the session is gone.

        Raises:
            psycopg.OperationalError: see there.
        """
        if self._tx is not None and not self._tables.is_open(self._tx):
            self._tx, self.is_lost = None, True
        if self.is_lost or self._faults.is_away:
            self.is_lost = True
            raise psycopg.OperationalError("the session is gone")

    async def _begin(self, sent: Sequence[Statement]) -> None:
        wanted = {lock for sql, parameters in sent for lock in locks_of(sql, parameters)}
        self._require()
        while not self._tables.is_free(wanted):
            await self._tables.wait(asyncio.get_running_loop())
            self._require()
        self._tx = self._tables.begin()
        self._tx.locks |= wanted

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        self._require()
        tx = self._tx
        if sql == "ROLLBACK":
            if tx is not None:
                self._tables.roll_back(tx)
                self._tx = None
            return []
        if sql == hints.SEND:
            for payload in parameters[0]:
                self._faults.notify(payload)
            return []
        if sql in CLAIMS:
            return CLAIMS[sql](self._tables, *parameters)
        assert tx is not None
        tx.since_s = self._tables.elapsed_s
        if sql in LOCKS:
            return LOCKS[sql](self._tables, tx, *parameters)
        if sql == "COMMIT":
            self._commit(tx)
        elif sql in WRITES:
            tx.writes.append((WRITES[sql], (self._tables, *parameters)))
        else:
            assert sql == "BEGIN", sql
        return []

    def _commit(self, tx: Transaction) -> None:
        fate = self._faults.fates.popleft() if self._faults.fates else Fate.ANSWERED
        self._faults.seen(fate)
        if fate is Fate.CONFLICT:
            raise psycopg.errors.SerializationFailure
        self._tx = None
        if fate in {Fate.LATE, Fate.LATE_ABORT}:
            self._faults.late[tx.xid] = (tx, LATE_QUESTIONS, fate is Fate.LATE)
        elif fate is Fate.LOST_BEFORE:
            self._tables.roll_back(tx)
        else:
            self._tables.commit(tx)
        if fate is Fate.FORGOTTEN:
            self._tables.outcomes[tx.xid] = None
        if fate is not Fate.ANSWERED:
            self.is_lost = True
            raise psycopg.OperationalError("the session broke at COMMIT")


def fate_of(tables: Tables, faults: Faults, xid: str, witness: tuple[str, int] | None) -> Found:
    """What the database has to say of a transaction, as `store.fates.fate_of` reads it."""
    faults.require_database()
    late = faults.late.get(xid)
    if late is not None:
        tx, questions, commits = late
        if questions > 0:
            faults.late[xid] = (tx, questions - 1, commits)
        else:
            decide_late(tables, faults, xid)
    match tables.outcomes[xid]:
        case "in progress":
            return Found.OPEN
        case "aborted":
            return Found.ABORTED
        case "committed" if witness is not None:
            return Found.COMMITTED if tables.written_by.get(witness) == xid else Found.ABORTED
        case _:
            return Found.UNKNOWN


def decide_late(tables: Tables, faults: Faults, xid: str) -> None:
    """The backend of a session that broke comes to its end."""
    tx, _, commits = faults.late.pop(xid)
    if commits and tables.is_open(tx):
        tables.commit(tx)
    else:
        tables.roll_back(tx)


class Reads:
    """The pool of connections for single statements: what SQLAlchemy's engine is to the runtime."""

    def __init__(self, tables: Tables, faults: Faults) -> None:
        self._tables = tables
        self._faults = faults

    def connect(self) -> Connection:
        """One connection of the pool."""
        return Connection(self._tables, self._faults)


class Connection:
    """A connection in autocommit mode."""

    def __init__(self, tables: Tables, faults: Faults) -> None:
        self._tables = tables
        self._faults = faults

    async def __aenter__(self) -> Self:
        self._faults.require_database()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    async def exec_driver_sql(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> Result:
        """One plain statement."""
        return await self.execute(sql, parameters or {})

    async def execute(self, statement: Any, parameters: Mapping[str, Any]) -> Result:
        """One statement."""
        await asyncio.sleep(0)
        self._faults.require_database()
        result = Result(READS[statement](self._tables, parameters))
        await asyncio.sleep(0)
        self._faults.require_database()
        return result


class Result:
    """The rows of a statement."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    @property
    def rowcount(self) -> int:
        """How many there are."""
        return len(self._rows)

    def __iter__(self) -> Any:
        return iter([_Named(**row) if isinstance(row, dict) else row for row in self._rows])

    def all(self) -> list[Any]:
        """All of them."""
        return self._rows

    def mappings(self) -> Result:
        """By the names of their columns."""
        return self

    def one_or_none(self) -> Any:
        """The only one, or None."""
        assert len(self._rows) <= 1
        return self._rows[0] if self._rows else None


class _Named:
    def __init__(self, **columns: Any) -> None:
        self.__dict__.update(columns)
