"""The schema before the server starts: there, and of this release."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runkon_server.store.migrations import Schema

WAIT_S = 30.0
"""How long a database that does not answer is waited for."""
PAUSE_S = 1.0


def check_schema(dsn: str, *, migrate: bool, wait_s: float = WAIT_S) -> str:
    """Return the schema's revision when this release can work on it.

    That is the schema of this release, or one of a later release whose steps left everything there
    that this one needs (ADR-0015). A database that does not answer is waited for.

    Args:
        dsn: URL of the database.
        migrate: bring an older schema up to date instead of refusing it.
        wait_s: for how long; 0 asks once.

    Raises:
        click.ClickException: the schema does not suit, or the database does not answer.
    """
    import structlog

    from runkon_server.store import migrations

    def check() -> migrations.Schema:
        if migrate:
            migrations.upgrade(dsn)
        return migrations.present_schema(dsn)

    present = await_database(check, wait_s)
    head = migrations.head_revision()
    if present.revision is not None and present.is_usable:
        if present.is_newer:
            structlog.get_logger(__name__).info("schema.newer", schema=present.revision, known=head)
        return present.revision
    if present.is_newer:
        raise click.ClickException(
            f"the schema of the database is {present.revision}, which needs a release that knows"
            f" schema {present.oldest_compatible or present.revision}; this one knows schemas up to"
            f" {head}: install the newer release"
        )
    raise click.ClickException(
        f"the schema of the database is {present.revision or 'not there'}, but this release of"
        f" Runkon needs {head}: run `runkon-server migrate`"
    )


def await_database(ask: Callable[[], Schema], wait_s: float) -> Schema:
    """What `ask` returns once the database answers; tells why while it does not.

    Raises:
        click.ClickException: it did not answer in time, it refuses, or the URL is no URL.
    """
    import time

    import structlog
    from sqlalchemy.exc import ArgumentError, OperationalError

    log = structlog.get_logger(__name__)
    deadline = time.monotonic() + wait_s  # noqa: TID251 - the process's own patience, no run's time
    told = ""
    while True:
        try:
            with refusals_told():
                return ask()
        except (ArgumentError, ValueError):
            raise click.ClickException(
                "the database URL is not one; it looks like postgresql://USER:PASSWORD@HOST/NAME"
            ) from None
        except OperationalError as error:
            reason = str(error.orig).strip().replace("\n", "; ")
            if time.monotonic() >= deadline:  # noqa: TID251 - as above
                raise click.ClickException(f"the database does not answer: {reason}") from None
            if reason != told:
                log.warning("database.awaited", reason=reason)
                told = reason
        time.sleep(PAUSE_S)  # noqa: TID251 - as above


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Tell in a line what the database does not let its caller do.

    Raises:
        click.ClickException: the role has no right to something, or the database is a standby.
    """
    from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, InsufficientPrivilege):
            advice = "`deploy/roles.sql` makes roles that have the rights"
        elif isinstance(error.orig, ReadOnlySqlTransaction):
            advice = "a standby takes no changes, its primary does"
        else:
            raise
        refusal = str(error.orig).partition("\n")[0]
        raise click.ClickException(f"the database refuses: {refusal}; {advice}") from None
