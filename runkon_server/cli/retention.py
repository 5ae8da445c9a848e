"""`runkon-server retention` and `runkon-server purge`: how long runs are kept after their end."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from runkon_server.cli.asking import ask_database
from runkon_server.cli.options import check_namespace, database_option

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WORDS: Final = ("days", "hours", "minutes")
_NONE: Final = timedelta()
_FOREVER: Final = "forever"
EVERYONE: Final = "(default)"


class Span(click.ParamType[Any]):
    """A span such as `30d` or `12h`, or `forever` where that is allowed, which is None."""

    name = "span"

    def __init__(self, *, may_be_forever: bool) -> None:
        self._may_be_forever = may_be_forever

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta | None:
        """The span; None for ever."""
        if isinstance(value, timedelta):
            return value
        if value == _FOREVER and self._may_be_forever:
            return None
        found = re.fullmatch(r"([0-9]{1,5})([smhdw])", str(value))
        if found is None:
            also = f", or {_FOREVER}" if self._may_be_forever else ""
            self.fail(f"{value!r} is no span such as 30d (units s, m, h, d, w){also}", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.group()
def retention() -> None:
    """Say how long runs are kept after their end.

    A run goes with the runs below it, its steps and its events; what stays for 90 days is how it
    ended. Where nothing else is said that happens 30 days after its end. Every replica looks every
    ten minutes.
    """


@retention.command("show")
@database_option
def show_retention(database_url: str) -> None:
    """Show what holds: the default, and namespaces with a time of their own."""
    found = ask_database(database_url, _read)
    click.echo(f"{EVERYONE}  {_told(found.of(''))}")
    for namespace, keep_for in found.policies.items():
        if namespace:
            click.echo(f"{namespace}  {_told(keep_for)}")


@retention.command("set")
@database_option
@click.argument("keep_for", type=Span(may_be_forever=True), metavar="SPAN")
@click.option(
    "--namespace",
    default="",
    callback=check_namespace,
    help="For this namespace only, not as the default.",
)
def set_retention(database_url: str, keep_for: timedelta | None, namespace: str) -> None:
    """Keep runs for SPAN after their end, such as 30d, or `forever`."""
    ask_database(database_url, partial(_set, namespace=namespace, keep_for=keep_for))
    click.echo(f"{namespace or EVERYONE}  {_told(keep_for)}")


@retention.command("unset")
@database_option
@click.option(
    "--namespace",
    default="",
    callback=check_namespace,
    help="For this namespace, not the default.",
)
def unset_retention(database_url: str, namespace: str) -> None:
    """Forget what was set: the default holds for the namespace, or 30 days for all."""
    ask_database(database_url, partial(_unset, namespace=namespace))
    click.echo(f"{namespace or EVERYONE}  {_told(ask_database(database_url, _read).of(namespace))}")


@click.command()
@database_option
@click.option(
    "--older-than",
    type=Span(may_be_forever=False),
    metavar="SPAN",
    help="Runs that ended so long ago, whatever the retention says, such as 7d.",
)
@click.option("--namespace", default="", callback=check_namespace, help="Of this namespace only.")
@click.option("--dry-run", is_flag=True, help="Only say how many runs would go.")
def purge(
    database_url: str, older_than: timedelta | None, namespace: str, *, dry_run: bool
) -> None:
    """Remove runs that are kept no longer, now, with the runs below them.

    Replicas do so by themselves every ten minutes. Safe beside them, and to interrupt.
    """
    from runkon_server.api.logs import LogFormat, configure_logging

    configure_logging(LogFormat.CONSOLE, "warning")
    work = _count if dry_run else _purge
    number = ask_database(database_url, partial(work, namespace=namespace, older_than=older_than))
    click.echo(f"{number} root runs would be removed" if dry_run else f"{number} runs removed")


def _told(keep_for: timedelta | None) -> str:
    if keep_for is None:
        return "kept for ever"
    # In the largest unit that makes it a whole number.
    unit = next((each for each in _WORDS if keep_for % timedelta(**{each: 1}) == _NONE), "seconds")
    number = keep_for / timedelta(**{unit: 1})
    return f"kept for {number:.10g} {unit[:-1] if number == 1 else unit}"


async def _read(engine: AsyncEngine) -> Any:  # noqa: ANN401 - imported where it is needed
    from runkon_server.store.retention import read_retention

    async with engine.connect() as conn:
        return await read_retention(conn)


async def _set(engine: AsyncEngine, *, namespace: str, keep_for: timedelta | None) -> None:
    from runkon_server.store.retention import set_retention

    async with engine.connect() as conn:
        await set_retention(conn, namespace, keep_for)


async def _unset(engine: AsyncEngine, *, namespace: str) -> None:
    from runkon_server.store.retention import unset_retention

    async with engine.connect() as conn:
        await unset_retention(conn, namespace)


async def _purge(engine: AsyncEngine, *, namespace: str, older_than: timedelta | None) -> int:
    from runkon_server.runtime.ambient import SystemAmbient
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.runtime.sweeper import Sweeper

    sweeper = Sweeper(EngineConfig(dsn=""), SystemAmbient(), engine, EngineStats())
    return await sweeper.sweep(only=namespace or None, older_than=older_than)


async def _count(engine: AsyncEngine, *, namespace: str, older_than: timedelta | None) -> int:
    from runkon_server.store.purging import count_due, namespaces
    from runkon_server.store.retention import read_retention

    async with engine.connect() as conn:
        policies = await read_retention(conn)
        number = 0
        for name in [namespace] if namespace else await namespaces(conn):
            keep_for = policies.of(name) if older_than is None else older_than
            if keep_for is not None:
                number += await count_due(conn, name, keep_for)
        return number
