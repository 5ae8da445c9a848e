"""`runkon-server limits`: how many tasks of an action may be out, and how fast they go out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from runkon_server.cli.asking import ask_database
from runkon_server.cli.options import check_action, check_namespace, database_option

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def _named(context: click.Context, option: click.Parameter, namespace: str) -> str:
    """Empty means `default`, as in every request."""
    return check_namespace(context, option, namespace) or "default"


_namespace_option = click.option(
    "--namespace", default="default", show_default=True, callback=_named
)
_action_argument = click.argument("action", callback=check_action)


@click.group()
def limits() -> None:
    """Limit actions, while everything runs.

    All replicas keep a limit together, within a second or two of its change. Tasks beyond it wait
    in the queue, where they use up no attempt.
    """


@limits.command("show")
@database_option
def show_limits(database_url: str) -> None:
    """Show what is set."""
    for (namespace, action), limit in ask_database(database_url, _read).items():
        click.echo(f"{namespace}  {action}  {_told(limit)}")


@limits.command("set")
@database_option
@_action_argument
@click.option(
    "--concurrency", type=click.IntRange(min=0), help="Tasks with workers at once; 0 stops it."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Tasks handed out per second; a burst is at most one second's worth.",
)
@_namespace_option
def set_limit(
    database_url: str, action: str, concurrency: int | None, rate: float | None, namespace: str
) -> None:
    """Limit ACTION, instead of what was set for it."""
    from runkon_server.store.action_limits import LIMIT_MAX, ActionLimit

    if concurrency is None and rate is None:
        raise click.UsageError("say --concurrency, --rate, or both")
    for option, given in (("--concurrency", concurrency), ("--rate", rate)):
        if given is not None and not given <= LIMIT_MAX:  # as NaN is not, either
            raise click.BadParameter(f"is at most {LIMIT_MAX:,}", param_hint=option)
    limit = ActionLimit(concurrency, rate)
    ask_database(database_url, partial(_set, namespace=namespace, action=action, limit=limit))
    click.echo(f"{namespace}  {action}  {_told(limit)}")


@limits.command("unset")
@database_option
@_action_argument
@_namespace_option
def unset_limit(database_url: str, action: str, namespace: str) -> None:
    """Let ACTION run without limits."""
    ask_database(database_url, partial(_unset, namespace=namespace, action=action))
    click.echo(f"{namespace}  {action}  no limit")


def _told(limit: Any) -> str:  # noqa: ANN401 - imported where it is needed
    words = []
    if limit.concurrency is not None:
        words.append(f"{limit.concurrency} at once")
    if limit.per_s is not None:
        words.append(f"{limit.per_s:g} per second")
    return ", ".join(words)


async def _read(engine: AsyncEngine) -> Any:  # noqa: ANN401 - as above
    from runkon_server.store.action_limits import read_limits

    async with engine.connect() as conn:
        return await read_limits(conn)


async def _set(engine: AsyncEngine, *, namespace: str, action: str, limit: Any) -> None:  # noqa: ANN401 - as above
    from runkon_server.store.action_limits import set_limit as write_limit

    async with engine.connect() as conn:
        await write_limit(conn, namespace, action, limit)


async def _unset(engine: AsyncEngine, *, namespace: str, action: str) -> None:
    from runkon_server.store.action_limits import unset_limit as remove_limit

    async with engine.connect() as conn:
        await remove_limit(conn, namespace, action)
