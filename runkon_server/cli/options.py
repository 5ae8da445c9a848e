"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.api.parsing.checks import Check

CommandT = TypeVar("CommandT", bound="Callable[..., Any]")

DEFAULT_PORT = 7411
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"


def _refuse_torn_url(
    _context: click.Context, _option: click.Parameter, url: str | None
) -> str | None:
    """The URL as it is. Says nothing of what it holds, for that is part of a password.

    Raises:
        click.BadParameter: an `@` of the password was taken for the one before the host, so that
            the rest of the password would be asked for, and logged, as a host.
    """
    if url is None:
        return None
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        host = str(conninfo_to_dict(url).get("host") or "")
    except ProgrammingError:  # whoever connects says that it is no URL
        return url
    # At its beginning it marks a socket without a file.
    if "@" in host[1:]:
        raise click.BadParameter("its password holds an `@`, which is written %40 in a URL")
    return url


def check_namespace(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """The name as it is, for a callback.

    Raises:
        click.BadParameter: no namespace can be called so, and what is set for it would not hold.
    """
    check = _new_check()
    check.namespace(name)
    return _checked(check, name)


def check_action(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """The same for the name of an action."""
    from runkon_server.api.parsing.checks import NAME_BYTES

    check = _new_check()
    check.label("action", name, NAME_BYTES, required=True)
    return _checked(check, name)


def _new_check() -> Check:
    from runkon_server.api.parsing.checks import Check

    return Check()


def _checked(check: Check, value: str) -> str:
    from runkon_server.errors import InvalidArgumentError

    try:
        check.done()
    except InvalidArgumentError as error:
        raise click.BadParameter(error.violations[0].description) from None
    return value


def database_option(command: CommandT) -> CommandT:
    """Adds `--database-url`, required."""
    return click.option(
        "--database-url",
        envvar="RUNKON_DATABASE_URL",
        show_envvar=True,
        required=True,
        callback=_refuse_torn_url,
        metavar="URL",
        help="The database: postgresql://USER:PASSWORD@HOST:PORT/NAME. Rather set"
        " the variable, for other users of the machine see a process's arguments.",
    )(command)


def direct_option(command: CommandT) -> CommandT:
    """Adds `--database-direct-url`."""
    return click.option(
        "--database-direct-url",
        envvar="RUNKON_DATABASE_DIRECT_URL",
        show_envvar=True,
        callback=_refuse_torn_url,
        metavar="URL",
        help="The same database past the pooler. Give it if --database-url leads to a pooler in"
        " transaction mode, such as PgBouncer: notifications, leases and migrations need sessions.",
    )(command)


def metrics_option(command: CommandT) -> CommandT:
    """Adds `--metrics-port`."""
    return click.option(
        "--metrics-port",
        envvar="RUNKON_METRICS_PORT",
        show_envvar=True,
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve Prometheus metrics at http://HOST:PORT/metrics, on the host of the first"
        " listener. Off unless given.",
    )(command)


def log_options(default: str) -> Callable[[CommandT], CommandT]:
    """Adds `--log-format` and `--log-level`."""

    def add(command: CommandT) -> CommandT:
        command = click.option(
            "--log-level",
            envvar="RUNKON_LOG_LEVEL",
            show_envvar=True,
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
            help="The least that is logged.",
        )(command)
        return click.option(
            "--log-format",
            envvar="RUNKON_LOG_FORMAT",
            show_envvar=True,
            type=click.Choice(["json", "console"]),
            default=default,
            show_default=True,
            help="Logs for machines or for people, on standard error.",
        )(command)

    return add


def reflection_option(command: CommandT) -> CommandT:
    """Adds `--reflection/--no-reflection`."""
    return click.option(
        "--reflection/--no-reflection",
        envvar="RUNKON_REFLECTION",
        show_envvar=True,
        default=True,
        show_default=True,
        help="Whether tools like grpcurl may ask the server for its contract.",
    )(command)
