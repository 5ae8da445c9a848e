"""The database under the rig: a PostgreSQL of its own, or one that somebody lends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString, Protocol

import psycopg
from psycopg import conninfo, sql

from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.session_settings import schema_options

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping


class NotEmptyError(Exception):
    """The schema that was lent has something in it."""


class Database(Protocol):
    """Where the rig's service keeps its data."""

    @property
    def url(self) -> str:
        """By which the rig itself gets there, past all proxies."""

    @property
    def is_own(self) -> bool:
        """Whether the server's process may be harmed."""

    async def start(self) -> None:
        """Get it ready.

        Raises:
            NotEmptyError: see there.
        """

    async def restart(self, number: signal.Signals) -> None:
        """Stop the server with this signal and start it again."""

    async def stop(self) -> None:
        """Leave nothing behind."""


class OwnPostgres:
    """A durable server in a temporary folder; the same port over all restarts."""

    is_own = True

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="runkon-verify-"))
        self._folder.chmod(0o711)  # root's server runs as another user
        self._data = self._folder / "postgres" / "data"
        self._server = EmbeddedPostgres(self._folder / "postgres")
        self._lock = asyncio.Lock()
        self.url = ""

    async def start(self) -> None:
        """Start it for the first time."""
        self.url = await asyncio.to_thread(self._server.start)

    async def restart(self, number: signal.Signals) -> None:
        """SIGQUIT is PostgreSQL's immediate shutdown, SIGINT its fast one."""
        async with self._lock:
            await asyncio.to_thread(self._end_server, number)
            self.url = await asyncio.to_thread(self._server.start)

    def _end_server(self, number: signal.Signals) -> None:
        pidfile = self._data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(pidfile.read_text(encoding="utf-8").split(maxsplit=1)[0])
            os.kill(pid, number)
        self._server.stop()

    async def stop(self) -> None:
        """Shut it down and remove its folder."""
        async with self._lock:
            await asyncio.to_thread(self._server.stop)
        shutil.rmtree(self._folder, ignore_errors=True)


class LentDatabase:
    """A schema of somebody's own: it has to be empty, and is so again in the end."""

    is_own = False

    def __init__(self, url: str) -> None:
        self.url = url

    async def start(self) -> None:
        """Make sure that nothing is there."""
        async with await self._connect() as conn:
            found = await (await conn.execute(_CONTENTS)).fetchall()
            beside = await (await conn.execute(_OURS)).fetchone()
        if found:
            some = ", ".join(str(row[1]) for row in found[:3])
            raise NotEmptyError(f"the schema is not empty: it has {some}, {len(found)} in all")
        if beside is not None and beside[0]:
            raise NotEmptyError("the database has a schema `runkon`: some Runkon is at home there")

    async def restart(self, number: signal.Signals) -> None:
        """Not ours to do."""
        raise AssertionError(number)

    async def stop(self) -> None:
        """Remove everything from the schema; before the rig there was nothing."""
        async with await self._connect() as conn:
            await conn.execute("DROP SCHEMA IF EXISTS runkon CASCADE")
            while found := await (await conn.execute(_CONTENTS)).fetchall():
                for kind, name, arguments in found:
                    with contextlib.suppress(psycopg.errors.UndefinedObject):
                        await conn.execute(_drop(kind, name, arguments))

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        """Look where the server looks: not where the user's name may lead to."""
        options = schema_options(self.url)
        return await psycopg.AsyncConnection.connect(self.url, autocommit=True, options=options)


_OURS: Final[LiteralString] = "SELECT to_regnamespace('runkon') IS NOT NULL"
"""Where the functions for callers in SQL are."""
_CONTENTS: Final[LiteralString] = """
SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
       c.relname, NULL
FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace
  AND c.relkind IN ('r', 'p', 'v', 'S') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.refobjid <> c.oid
                  AND d.deptype IN ('a', 'i', 'e'))
UNION ALL
SELECT 'FUNCTION', p.proname, pg_get_function_identity_arguments(p.oid)
FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'TYPE', t.typname, NULL
FROM pg_type t WHERE t.typnamespace = current_schema()::regnamespace AND t.typtype IN ('e', 'd')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')"""


def _drop(kind: str, name: str, arguments: str | None) -> sql.Composed:
    words: dict[str, LiteralString] = {
        "VIEW": "DROP VIEW IF EXISTS {} CASCADE",
        "SEQUENCE": "DROP SEQUENCE IF EXISTS {} CASCADE",
        "TABLE": "DROP TABLE IF EXISTS {} CASCADE",
        "FUNCTION": "DROP FUNCTION IF EXISTS {}",
        "TYPE": "DROP TYPE IF EXISTS {} CASCADE",
    }
    statement = sql.SQL(words[kind]).format(sql.Identifier(name))
    if kind == "FUNCTION":
        return sql.Composed([statement, sql.SQL(f"({arguments}) CASCADE")])  # PostgreSQL's own text
    return statement


def address_of(url: str) -> tuple[str, int]:
    """Host and port that a URL leads to."""
    found: Mapping[str, Any] = conninfo.conninfo_to_dict(url)
    host = str(found.get("hostaddr") or found.get("host") or "127.0.0.1")
    return host, int(str(found.get("port") or 5432))


def url_through(url: str, port: int, *, plain: bool) -> str:
    """The same database by way of a port of 127.0.0.1.

    The host's name stays, for TLS checks it. `plain`: without TLS, so that a proxy can read along.
    """
    found = conninfo.conninfo_to_dict(url)
    changed: dict[str, Any] = {"hostaddr": "127.0.0.1", "port": port}
    if not found.get("host"):
        changed["host"] = "127.0.0.1"
    if plain:
        changed |= {"sslmode": "disable", "gssencmode": "disable"}
    return _as_url({**found, **changed})


def _as_url(parts: Mapping[str, Any]) -> str:
    from urllib.parse import quote, urlencode  # noqa: PLC0415 - only here

    rest = {key: str(value) for key, value in parts.items() if value is not None}
    user = quote(rest.pop("user", ""), safe="")
    password = quote(rest.pop("password", ""), safe="")
    account = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host = rest.pop("host")
    port = rest.pop("port")
    name = quote(rest.pop("dbname", ""), safe="")
    return f"postgresql://{account}{host}:{port}/{name}?{urlencode(rest)}"


async def takes_plain(url: str) -> bool:
    """Whether the server lets us in without TLS."""
    plain = conninfo.make_conninfo(url, sslmode="disable", gssencmode="disable")
    try:
        async with await psycopg.AsyncConnection.connect(plain, connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False
