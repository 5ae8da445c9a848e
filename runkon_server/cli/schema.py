"""The schema before the server starts: there, and of this release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 30.0
"""How long a database that does not answer is waited for."""
PAUSE_S = 1.0


def check_schema(dsn: str, *, migrate: bool) -> None:
    """Return when the database has the schema that this release is written for.

    A database that does not answer is waited for.

    Args:
        dsn: URL of the database.
        migrate: bring an older schema up to date instead of refusing it.

    Raises:
        click.ClickException: the schema is older or newer, or the database does not answer.
    """
    from runkon_server.store import migrations

    def check() -> str | None:
        if migrate and not _is_newer(migrations.current_revision(dsn)):
            migrations.upgrade(dsn)
        return migrations.current_revision(dsn)

    present = await_database(check)
    if _is_newer(present):
        raise click.ClickException(
            f"the schema of the database is {present}, but this release of Runkon knows schemas up"
            f" to {migrations.head_revision()} only: install the newer release"
        )
    if present != migrations.head_revision():
        raise click.ClickException(
            f"the schema of the database is {present or 'not there'}, but this release of Runkon"
            f" needs {migrations.head_revision()}: run `runkon-server migrate`"
        )


def await_database(ask: Callable[[], str | None]) -> str | None:
    """What `ask` returns once the database answers; tells why while it does not.

    Raises:
        click.ClickException: it did not answer in time, or the URL is no URL.
    """
    import time

    import structlog
    from sqlalchemy.exc import ArgumentError, OperationalError

    log = structlog.get_logger(__name__)
    deadline = time.monotonic() + WAIT_S  # noqa: TID251 - the process's own patience, no run's time
    while True:
        try:
            return ask()
        except (ArgumentError, ValueError):
            raise click.ClickException(
                "the database URL is not one; it looks like postgresql://USER:PASSWORD@HOST/NAME"
            ) from None
        except OperationalError as error:
            reason = str(error.orig).strip().replace("\n", "; ")
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                raise click.ClickException(f"the database does not answer: {reason}") from None
            log.warning("database.awaited", reason=reason)
        time.sleep(PAUSE_S)  # noqa: TID251 - as above


def _is_newer(revision: str | None) -> bool:
    from runkon_server.store import migrations

    # Revisions are numbers of four digits: their order is that of the alphabet.
    return revision is not None and revision > migrations.head_revision()
