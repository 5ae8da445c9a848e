"""`runkon-server serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runkon_server.cli.options import (
    DEFAULT_LISTEN,
    database_option,
    direct_option,
    log_options,
    metrics_option,
    reflection_option,
)

if TYPE_CHECKING:
    from runkon_server.cli.listening import Address


@click.command()
@database_option
@direct_option
@click.option(
    "--listen",
    envvar="RUNKON_LISTEN",
    show_envvar=True,
    multiple=True,
    default=[DEFAULT_LISTEN],
    show_default=True,
    metavar="HOST:PORT|unix:PATH",
    help="Where to serve gRPC; may be given several times. Port 0 takes any free one.",
)
@metrics_option
@click.option(
    "--insecure",
    is_flag=True,
    envvar="RUNKON_INSECURE",
    show_envvar=True,
    help="Allow listeners that other machines can reach, in plain text. Nobody is asked who they"
    " are: only for a network in which everybody may do everything.",
)
@click.option(
    "--migrate/--no-migrate",
    envvar="RUNKON_MIGRATE",
    show_envvar=True,
    default=False,
    show_default=True,
    help="Whether to bring the database's schema up to date first.",
)
@click.option(
    "--lease-ttl",
    envvar="RUNKON_LEASE_TTL",
    show_envvar=True,
    type=click.FloatRange(2, 600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a run stays with a replica that has fallen silent; the same on all replicas.",
)
@click.option(
    "--task-lease",
    envvar="RUNKON_TASK_LEASE",
    show_envvar=True,
    type=click.FloatRange(2, 600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a task stays with a worker that has fallen silent.",
)
@click.option(
    "--streams-per-connection",
    envvar="RUNKON_STREAMS_PER_CONNECTION",
    show_envvar=True,
    type=click.IntRange(1, 1_000),
    default=32,
    show_default=True,
    metavar="N",
    help="Most event streams on one connection; not counted on Unix sockets.",
)
@click.option(
    "--streams-per-principal",
    envvar="RUNKON_STREAMS_PER_PRINCIPAL",
    show_envvar=True,
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    metavar="N",
    help="Most event streams of one principal on this replica; not counted without a name.",
)
@reflection_option
@log_options("json")
def serve(
    *,
    database_url: str,
    database_direct_url: str | None,
    listen: tuple[str, ...],
    metrics_port: int | None,
    lease_ttl: float,
    task_lease: float,
    log_format: str,
    log_level: str,
    insecure: bool,
    migrate: bool,
    reflection: bool,
    streams_per_connection: int,
    streams_per_principal: int,
) -> None:
    """Run a replica on a PostgreSQL database.

    Any number of replicas share one database, and any of them serves any run. SIGTERM and SIGINT
    stop it within a second: it hands its runs over and tells streams to reconnect elsewhere.
    """
    from runkon_server.api.logs import LogFormat, configure_logging
    from runkon_server.cli.listening import parse_address
    from runkon_server.cli.schema import check_schema
    from runkon_server.cli.stopping import ending_on_signals

    configure_logging(LogFormat(log_format), log_level)
    addresses = tuple(parse_address(text) for text in listen)
    _refuse_strangers(addresses, insecure=insecure)
    with ending_on_signals():
        check_schema(database_direct_url or database_url, migrate=migrate)

    from runkon_server.api.open_streams import StreamLimits
    from runkon_server.cli.hosting import HostConfig, run_host

    config = HostConfig(
        dsn=database_url,
        direct_dsn=database_direct_url,
        listen=addresses,
        metrics_port=metrics_port,
        lease_ttl_s=lease_ttl,
        task_lease_s=task_lease,
        reflection=reflection,
        streams=StreamLimits(
            per_connection=streams_per_connection, per_principal=streams_per_principal
        ),
    )
    run_host(config, lambda _: None)


def _refuse_strangers(addresses: tuple[Address, ...], *, insecure: bool) -> None:
    """Only this machine may connect, unless it is said otherwise.

    Raises:
        click.UsageError: others can, and `--insecure` was not given.
    """
    import structlog

    from runkon_server.api.server import is_local

    reachable = [each.target for each in addresses if not is_local(each.target)]
    if not reachable:
        return
    if not insecure:
        raise click.UsageError(
            f"other machines can reach {', '.join(reachable)}, and this server neither encrypts nor"
            " asks who is calling: listen on 127.0.0.1 or unix:PATH, or say --insecure"
        )
    structlog.get_logger(__name__).warning(
        "server.insecure",
        listen=reachable,
        meaning="everybody who can connect may start, read, change and cancel everything;"
        " nothing is encrypted",
    )
