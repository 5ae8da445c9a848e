"""The command line `runkon-server`: run the service, prepare its database, ask for its health.

Each command lives in a module of its own that is imported when it is asked for, so that
`runkon-server --help` and `version` are quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG: Final = """\
Exit codes: 0 done, or stopped by SIGTERM or SIGINT; 1 it failed, and standard error says why (for
`health`: not serving); 2 wrong usage.

Most options can also be given in the environment, such as RUNKON_DATABASE_URL; the help of a
command names the variables.
"""


def _serve() -> click.Command:
    from runkon_server.cli.serve import serve

    return serve


def _dev() -> click.Command:
    from runkon_server.cli.dev import dev

    return dev


def _migrate() -> click.Command:
    from runkon_server.cli.migrate import migrate

    return migrate


def _limits() -> click.Command:
    from runkon_server.cli.limits import limits

    return limits


def _retention() -> click.Command:
    from runkon_server.cli.retention import retention

    return retention


def _purge() -> click.Command:
    from runkon_server.cli.retention import purge

    return purge


def _health() -> click.Command:
    from runkon_server.cli.health import health

    return health


def _verify() -> click.Command:
    from runkon_server.cli.verify import verify

    return verify


def _version() -> click.Command:
    from runkon_server.cli.version import version

    return version


COMMANDS: Final[dict[str, tuple[Callable[[], click.Command], str]]] = {
    "serve": (_serve, "Run a replica on a PostgreSQL database."),
    "dev": (_dev, "Run a server with a PostgreSQL of its own, for development."),
    "migrate": (_migrate, "Bring the database's schema up to date."),
    "limits": (_limits, "Limit actions: tasks at once, tasks per second."),
    "retention": (_retention, "Say how long runs are kept after their end."),
    "purge": (_purge, "Remove runs that are kept no longer, now."),
    "health": (_health, "Ask a server whether it is ready."),
    "verify": (_verify, "Break things on purpose and check that nothing is lost."),
    "version": (_version, "Print the version."),
}
"""How each command is imported, and its line in the help."""


class LazyGroup(click.Group):
    """A group that imports its commands when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """The command of that name; None if there is none."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else entry[0]()

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands from the table, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Runkon, durable workflows on PostgreSQL and gRPC: the server."""
    if os.environ.get("RUNKON_FAILPOINTS"):
        from runkon_server.failpoints import FailpointSyntaxError, arm_from_environment

        try:
            arm_from_environment()
        except FailpointSyntaxError as error:
            raise click.UsageError(f"RUNKON_FAILPOINTS: {error}") from None
