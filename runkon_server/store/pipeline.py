"""One round trip for many statements: libpq's pipeline mode, driven without the driver's cursors.

The committer sends the same two dozen statements thousands of times a second. Cursors cost it more
than PostgreSQL needs for the statements themselves (measured, ADR-0006), so here parameters are
plain texts, statements are prepared once per connection under their own names, and the event loop
is woken once per round trip. Rows are read by the driver's own adapters.

Source: libpq, "Pipeline Mode".
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from psycopg.adapt import Transformer
from psycopg.errors import InFailedSqlTransaction, error_from_result
from psycopg.pq import ExecStatus

from runkon_server.failpoints import failpoint_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import psycopg
    from psycopg import abc
    from psycopg.pq.abc import PGconn, PGresult

Parameter: TypeAlias = "str | float | datetime | Sequence[str] | None"
Statement: TypeAlias = tuple[str, tuple[Parameter, ...]]
"""SQL with `$1`, `$2`, … and its parameters; every parameter's type must follow from the text."""
Rows: TypeAlias = list[tuple[Any, ...]]
Answered: TypeAlias = "Callable[[Exception | None], None]"

_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def _ignore(_: Exception | None) -> None:
    """Nobody wants to know."""


class Pipeline:
    """A connection that is used in pipeline mode only. One round trip at a time.

    Args:
        conn: in autocommit mode; belongs to the pipeline from now on.
        settings: a statement that follows every BEGIN; with it, nothing is left in the session, so
            that every transaction may have another one (a pooler's). None: the session is ours.
        behind_answered: called with what became of a statement `behind` an earlier trip: None, or
            its error. That is during the next trip. Must not raise.
    """

    def __init__(
        self,
        conn: psycopg.AsyncConnection[Any],
        *,
        settings: str | None = None,
        behind_answered: Answered = _ignore,
    ) -> None:
        self._conn = conn
        self._behind_answered = behind_answered
        self._keeps_statements = settings is None
        self.opening: tuple[Statement, ...] = (("BEGIN", ()),)
        """What begins a transaction."""
        if settings is not None:
            self.opening += ((settings, ()),)
        self._pg = conn.pgconn
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._names: dict[str, bytes] = {}
        """Statements that are prepared."""
        self._transformer: abc.Transformer = Transformer(conn)
        self._is_behind_unread = False
        """Whether a statement `behind` the trip before was sent."""

    @property
    def is_lost(self) -> bool:
        """Whether the session is gone."""
        return self._conn.closed

    async def close(self) -> None:
        """End the session."""
        await self._conn.close()

    async def run(
        self,
        statements: Iterable[Statement],
        *,
        executed: Callable[[], None] | None = None,
        behind: Statement | None = None,
    ) -> list[Rows]:
        """Send everything, then read everything; one list of rows per statement.

        No statement after a failed one is executed. A transaction that was open stays open (and
        failed), as with any other way to run statements.

        Args:
            executed: called when the last answer is read and no statement has failed; a turn of
                the event loop before the caller goes on. Must not raise.
            behind: goes with the rest and is executed after it, by itself; inside of a transaction
                that failed, not at all. Nobody waits for it, so it is for what may be lost; that it
                failed is told to `behind_answered`.

        Raises:
            ValueError: a parameter that no text can hold; nothing was sent.
            psycopg.Error: that of the first statement that failed, or of the connection. After
                a lost connection, or when cancelled in between, the pipeline must be closed.
        """
        encoded = [(sql, [encode(value) for value in values]) for sql, values in statements]
        afterthought = None
        if behind is not None:
            afterthought = (behind[0], [encode(value) for value in behind[1]])
        unread = self._behind_answered if self._is_behind_unread else None
        trip = _Trip(self._pg, self._transformer, executed, unread)
        self._is_behind_unread = afterthought is not None
        for sql, parameters in encoded:
            name = self._names.get(sql)
            if not self._keeps_statements:
                name = trip.parse(sql)
            elif name is None:
                number = len(self._names) + len(trip.prepared)
                name = trip.prepare(sql, f"{sql.split(maxsplit=1)[0]}_{number}".encode())
            trip.send(name, parameters)
        try:
            rows = await trip.finish(afterthought)
        finally:
            self._names |= trip.prepared
        await failpoint_async("pipeline.answered")
        return rows


class _Trip:
    """One round trip under way."""

    __slots__ = (
        "_error",
        "_executed",
        "_expected",
        "_loop",
        "_pg",
        "_rows",
        "_taken",
        "_transformer",
        "_unread",
        "_unread_error",
        "_waiter",
        "prepared",
    )

    def __init__(
        self,
        pg: PGconn,
        transformer: abc.Transformer,
        executed: Callable[[], None] | None,
        unread: Answered | None,
    ) -> None:
        self._pg = pg
        self._transformer = transformer
        self._executed = executed
        self._unread = unread
        """Hears the answer to what went behind the trip before, which comes first; or None."""
        self._unread_error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] = self._loop.create_future()
        self._expected: list[str | None] = []
        """For each result to come: the statement that it prepares, or None for one with rows."""
        self._taken = 0
        self._rows: list[Rows] = []
        self._error: Exception | None = None
        self.prepared: dict[str, bytes] = {}

    def prepare(self, sql: str, name: bytes) -> bytes:
        known = self.prepared.get(sql)
        if known is not None:
            return known
        self._pg.send_prepare(name, sql.encode())
        self._expected.append(sql)
        self.prepared[sql] = name
        return name

    def parse(self, sql: str) -> bytes:
        """Prepare without a name: good until the next one."""
        self._pg.send_prepare(b"", sql.encode())
        self._expected.append(sql)
        return b""

    def send(self, name: bytes, parameters: list[bytes | None]) -> None:
        self._pg.send_query_prepared(name, parameters)
        self._expected.append(None)

    async def finish(self, afterthought: tuple[str, list[bytes | None]] | None) -> list[Rows]:
        self._pg.pipeline_sync()
        if afterthought is not None:
            self._pg.send_prepare(b"", afterthought[0].encode())
            self._pg.send_query_prepared(b"", afterthought[1])
            self._pg.pipeline_sync()
        descriptor = self._pg.socket
        if self._pg.flush():
            self._loop.add_writer(descriptor, self._write)
        self._loop.add_reader(descriptor, self._read)
        try:
            await self._waiter
        finally:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        if self._error is not None:
            raise self._error
        return self._rows

    def _write(self) -> None:
        try:
            if not self._pg.flush():
                self._loop.remove_writer(self._pg.socket)
        except Exception as error:  # noqa: BLE001 - raised by `finish`, not in the loop's callback
            self._end(error)

    def _read(self) -> None:
        try:
            self._pg.consume_input()
            while not self._waiter.done() and not self._pg.is_busy():
                result = self._pg.get_result()
                if result is not None:  # None stands between the results of two statements
                    self._take(result)
        except Exception as error:  # noqa: BLE001 - raised by `finish`, not in the loop's callback
            self._end(error)

    def _end(self, error: Exception | None = None) -> None:
        self._error = self._error or error
        if not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, result: PGresult) -> None:
        status = result.status
        if self._unread is not None:
            self._take_unread(self._unread, result)
            return
        if status == ExecStatus.PIPELINE_SYNC:
            if self._executed is not None and self._error is None:
                self._executed()
            self._end()
            return
        if self._taken == len(self._expected):  # the server's last word before it hangs up
            self._error = self._error or error_from_result(result)
            return
        prepares = self._expected[self._taken]
        self._taken += 1
        if status not in _DONE:
            if prepares is not None:
                self.prepared.pop(prepares, None)
            if self._error is None and status != ExecStatus.PIPELINE_ABORTED:
                self._error = error_from_result(result)
        elif prepares is None:
            self._rows.append(self._read_rows(result))

    def _take_unread(self, answered: Answered, result: PGresult) -> None:
        status = result.status
        if status == ExecStatus.PIPELINE_SYNC:
            self._unread = None
            # What is refused behind a transaction that failed was not meant to be executed.
            if not isinstance(self._unread_error, InFailedSqlTransaction):
                answered(self._unread_error)
        elif status not in _DONE and status != ExecStatus.PIPELINE_ABORTED:
            self._unread_error = self._unread_error or error_from_result(result)

    def _read_rows(self, result: PGresult) -> Rows:
        if not result.ntuples:
            return []
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)


def encode(value: Parameter) -> bytes | None:
    """A parameter as PostgreSQL reads it; a sequence of texts becomes an array's literal.

    Raises:
        ValueError: a text with a NUL or with half a surrogate pair.
    """
    if value is None:
        return None
    if isinstance(value, str):
        data = value.encode()
    elif isinstance(value, datetime):
        data = value.isoformat().encode()
    elif isinstance(value, float | int):
        data = repr(value).encode()
    else:
        data = f"{{{','.join(map(_quoted, value))}}}".encode()
    if b"\0" in data:  # libpq would take it for the end
        raise ValueError("a text for PostgreSQL cannot hold a NUL character")
    return data


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
