"""`runkon-server migrate`."""

from __future__ import annotations

import click

from runkon_server.cli.options import database_option, direct_option, log_options


@click.command()
@database_option
@direct_option
@log_options("json")
def migrate(
    database_url: str, database_direct_url: str | None, log_format: str, log_level: str
) -> None:
    """Bring the database's schema up to date.

    Safe to run again, from several machines at once, and while replicas of the release before are
    at work. A database that does not answer is waited for, for 30 s.
    """
    from runkon_server.api.logs import LogFormat, configure_logging
    from runkon_server.cli.schema import check_schema

    configure_logging(LogFormat(log_format), log_level)
    revision = check_schema(database_direct_url or database_url, migrate=True)
    click.echo(f"the schema is {revision}")
