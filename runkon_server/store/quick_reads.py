"""Small reads that are asked often, on sessions of their own: one round trip and little else.

The pool of the other reads takes 0.58 ms of processor for a statement that gives one row, most of
it to check a connection out and in; here it is 0.07. Of 512 rows, it is 1.5 ms and 0.46 (measured,
CPython 3.11). Who starts a run and follows it asks for three such rows.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from sqlalchemy import make_url

from runkon_server.failpoints import failpoint_async
from runkon_server.store.database import connect_quick, transaction_settings
from runkon_server.store.pipeline import Pipeline

if TYPE_CHECKING:
    from sqlalchemy import Select

    from runkon_server.store.pipeline import Parameter, Rows, Statement

__all__ = ["Quick", "QuickReads", "Value"]

SESSIONS_MAX: Final = 2
WAIT_S: Final = 5.0
_DIALECT: Final = make_url("postgresql+psycopg://").get_dialect()
_PARAMETER: Final = re.compile(r"%\((\w+)\)s|%%")

Value: TypeAlias = "Parameter | list[int]"


class Quick:
    """A statement for `QuickReads`. A query is made into text when it is first asked.

    Args:
        statement: a query, or a text with parameters as `%(name)s` whose types follow from it.
    """

    __slots__ = ("_rendered", "_statement")

    def __init__(self, statement: Select[Any] | str) -> None:
        self._statement = statement
        self._rendered: _Rendered | None = None

    def bind(self, given: dict[str, Any]) -> Statement:
        """The text with numbered parameters, and their values in this order."""
        rendered = self._rendered
        if rendered is None:
            rendered = self._rendered = _render(self._statement)
        return rendered.text, tuple([_plain(given[name]) for name in rendered.names])


@dataclass(frozen=True, slots=True)
class _Rendered:
    text: str
    names: tuple[str, ...]


def _render(statement: Select[Any] | str) -> _Rendered:
    text, fixed = (statement, {}) if isinstance(statement, str) else _compiled(statement)
    numbers: dict[str, int] = {}

    def rewrite(found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None:
            return "%"
        if name in fixed:  # as a parameter, the planner would not know it
            return _literal(fixed[name])
        return f"${numbers.setdefault(name, len(numbers) + 1)}"

    return _Rendered(_PARAMETER.sub(rewrite, text), tuple(numbers))


def _compiled(query: Select[Any]) -> tuple[str, dict[str, Any]]:
    """The text of a query, and the values that are part of it."""
    compiled = query.compile(dialect=_DIALECT())
    wanted = dict.fromkeys(name for name, bind in compiled.binds.items() if bind.required)
    # Lists that are part of the query are only spelled out here.
    expanded = compiled.construct_expanded_state(wanted, escape_names=False)
    fixed = {n: value for n, value in expanded.parameters.items() if n not in wanted}
    return expanded.statement, fixed


def _literal(value: Any) -> str:  # noqa: ANN401 - a constant of our own code
    return str(value) if isinstance(value, int) else f"'{value}'"


class QuickReads:
    """At most two sessions, opened when they are first needed, each for one statement at a time.

    Args:
        dsn: of the database.
        lease_ttl_s: as for every session.
        is_pooled: whether a pooler gives every statement another session.
        wait_s: most time for which a read waits for its turn.
    """

    def __init__(
        self, dsn: str, lease_ttl_s: float, *, is_pooled: bool = False, wait_s: float = WAIT_S
    ) -> None:
        self._dsn = dsn
        self._lease_ttl_s = lease_ttl_s
        self._is_pooled = is_pooled
        self._wait_s = wait_s
        self._free: list[Pipeline] = []
        """Sessions that nobody uses, the one that was used last at the end."""
        self._turns = asyncio.Semaphore(SESSIONS_MAX)
        self._is_closed = False

    async def fetch(self, statement: Quick, **values: Value) -> Rows:
        """All rows, with what the driver makes of their columns.

        Whoever may be cancelled in the middle should ask through somebody who is not: the session
        is closed then.

        Raises:
            psycopg.Error: that of the statement, or of the connection; also when its turn did not
                come in time.
        """
        await self._await_turn()
        try:
            return await self._fetch(statement.bind(values))
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Close what is free now, and the rest when it is given back."""
        self._is_closed = True
        await self._close_free()

    async def _await_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise psycopg.errors.ConnectionTimeout("no session is free for a read") from None

    async def _fetch(self, statement: Statement) -> Rows:
        if self._free:
            session = self._free.pop()
            try:
                return await self._run(session, statement)
            except psycopg.Error:
                if not session.is_lost:
                    raise
            # It may have been lost for long, and others with it: a read can be made again.
            await self._close_free()
        return await self._run(await self._open(), statement)

    async def _run(self, session: Pipeline, statement: Statement) -> Rows:
        try:
            rows = (await session.run([statement]))[0]
            await failpoint_async("statement.answered")
        except psycopg.Error:
            await self._give_back(session)
            raise
        except BaseException:  # cancelled: its answer is still to come
            await session.close()
            raise
        await self._give_back(session)
        return rows

    async def _give_back(self, session: Pipeline) -> None:
        if self._is_closed or session.is_lost:
            await session.close()
        else:
            self._free.append(session)

    async def _close_free(self) -> None:
        free, self._free = self._free, []
        for session in free:
            await session.close()

    async def _open(self) -> Pipeline:
        conn = await connect_quick(self._dsn, self._lease_ttl_s, is_pooled=self._is_pooled)
        settings = transaction_settings(self._lease_ttl_s) if self._is_pooled else None
        return Pipeline(conn, settings=settings)


def _plain(value: Any) -> Parameter:  # noqa: ANN401 - what `Value` allows
    """A value as pipelines take it: elements of an array as texts."""
    if isinstance(value, list):
        return [str(each) for each in value]
    plain: Parameter = value
    return plain
