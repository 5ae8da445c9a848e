"""`runkon-server health`."""

from __future__ import annotations

import click

from runkon_server.cli.options import DEFAULT_LISTEN


@click.command()
@click.option(
    "--address",
    envvar="RUNKON_ADDRESS",
    show_envvar=True,
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT|unix:PATH",
    help="The server to ask.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Ask whether the process answers at all, whatever state its database is in.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
def health(address: str, *, live: bool, timeout: float) -> None:
    """Ask a server whether it is ready: exit code 0 if it is, 1 if it is not or does not answer."""
    import grpc

    from runkon_server.api.health import LIVENESS, ask_health

    try:
        status = ask_health(address, LIVENESS if live else "", timeout_s=timeout)
    except grpc.RpcError as error:
        raise click.ClickException(f"{address} does not answer: {error.code().name}") from None
    click.echo(status)
    if status != "SERVING":
        raise click.exceptions.Exit(1)
