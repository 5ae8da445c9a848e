"""What every command has in common: whom it talks to, how it prints, how it fails.

Imports the client only when a command runs, so that help is quick.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from runkon_client.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runkon_client import SyncClient
    from runkon_client.errors import RunkonClientError

_RETRY_WINDOW_S: Final = 3.0  # a person is waiting; the server may just be restarting
_META: Final = "runkon."
_LISTED: Final = {
    "WORKFLOW_NOT_FOUND": ("workflows", "lists what there is"),
    "RUN_NOT_FOUND": ("runs", "lists the newest ones"),
    "GATE_NOT_FOUND": ("gates", "lists those that wait"),
}
"""What to list when something was not found, and what that does."""
_IMPOSSIBLE: Final = "status = running AND status = waiting"
"""A filter that a server answers without looking anything up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options that every command has; None is left to the environment."""

    address: str | None = None
    namespace: str | None = None
    principal: str | None = None
    as_json: bool = False

    def connect(self) -> SyncClient:
        """A client; it connects with its first call."""
        from runkon_client import SyncClient
        from runkon_client.retry import RetryPolicy

        try:
            return SyncClient(
                self.address,
                namespace=self.namespace,
                principal=self.principal,
                retry=RetryPolicy(window_s=_RETRY_WINDOW_S),
            )
        except ValueError as reason:
            raise click.UsageError(str(reason)) from reason

    def command(self, *words: str) -> str:
        """A command line for people to copy, with the options that this one was given."""
        given = (
            ("--address", self.address),
            ("--namespace", self.namespace),
            ("--principal", self.principal),
        )
        options = [word for name, value in given if value for word in (name, value)]
        return shlex.join(["runkon", *words, *options])


def settings_of(context: click.Context) -> Settings:
    """The settings, wherever among the words they stood: before or after the command's name."""
    found = {
        key.removeprefix(_META): value
        for key, value in context.meta.items()
        if key.startswith(_META)
    }
    return Settings(**found)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # `meta` is shared by all contexts of one command line.
    if value and parameter.name:
        context.meta[_META + parameter.name] = value


def server_options() -> list[click.Parameter]:
    """The options of `Settings`; each command takes them, and so does `runkon` itself."""
    texts = {
        "address": ("HOST:PORT", "The server.  [RUNKON_ADDRESS; default: 127.0.0.1:7411]"),
        "namespace": ("NAME", "Where runs live.  [RUNKON_NAMESPACE; default: default]"),
        "principal": ("NAME", "Who is calling.  [RUNKON_PRINCIPAL; default: your user name]"),
    }
    options: list[click.Parameter] = [
        click.Option(
            [f"--{name}"], metavar=metavar, help=help_, expose_value=False, callback=_remember
        )
        for name, (metavar, help_) in texts.items()
    ]
    json_option = click.Option(
        ["--json", "as_json"],
        is_flag=True,
        help="Print JSON: one document, or a line for each event.",
        expose_value=False,
        callback=_remember,
    )
    return [*options, json_option]


class ServerCommand(click.Command):
    """A command that talks to a server: `Settings` is its context's object."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **options)
        self.params += server_options()

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; whatever the server refuses becomes an exit code."""
        ctx.obj = settings_of(ctx)
        with exit_codes(ctx.obj):
            return super().invoke(ctx)


class ServerGroup(click.Group):
    """A group of such commands."""

    command_class = ServerCommand


@contextlib.contextmanager
def exit_codes(settings: Settings) -> Iterator[None]:
    """Turn the client's errors and Ctrl-C into messages and exit codes.

    Raises:
        click.UsageError: an argument holds bytes that no message can carry.
    """
    from runkon_client.errors import RunkonClientError

    try:
        yield
    except RunkonClientError as error:
        report(error, settings)
        raise click.exceptions.Exit(exit_code_of(error)) from error
    except UnicodeEncodeError as reason:
        raise click.UsageError(f"not UTF-8: {reason.object!r}") from reason
    except KeyboardInterrupt:
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def require_server(client: SyncClient) -> None:
    """Find out whether a server answers; a stream would wait for one for ever, in silence.

    Raises:
        UnavailableError, DeadlineExceededError: none does.
    """
    from runkon_client.errors import RunkonClientError

    try:
        client.count_runs(_IMPOSSIBLE)
    except RunkonClientError as error:
        if exit_code_of(error) is Exit.UNAVAILABLE:
            raise


def exit_code_of(error: RunkonClientError) -> Exit:
    """Whether another try may help, or the answer was no."""
    from runkon_client import errors

    away = (errors.UnavailableError, errors.DeadlineExceededError, errors.CallCancelledError)
    return Exit.UNAVAILABLE if isinstance(error, away) else Exit.REFUSED


def report(error: RunkonClientError, settings: Settings) -> None:
    """Say on standard error what went wrong, as JSON if that was asked for."""
    from runkon_client.channel import resolve_endpoint
    from runkon_client.cli.documents import json_line

    if settings.as_json:
        document = {
            "code": error.code,
            "reason": error.reason,
            "message": error.message,
            "metadata": error.metadata,
            "violations": error.violations,
        }
        click.echo(json_line({"error": document}), err=True)
        return
    if exit_code_of(error) is Exit.UNAVAILABLE and not error.reason:
        address = resolve_endpoint(settings.address).address
        fail(f"no server answers at {address}", hint="`runkon-server dev` starts one")
        return
    fail(error.message, hint=_hint(error, settings), reason=error.reason)
    for violation in error.violations:
        if violation.description not in error.message:
            click.echo(f"  {violation.field}: {violation.description}", err=True)


def fail(message: str, *, hint: str = "", reason: str = "") -> None:
    """Print an error for people on standard error; leaving is the caller's business."""
    click.echo(click.style("error: ", fg="red", bold=True) + _with(message, reason), err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def _with(message: str, reason: str) -> str:
    from runkon_client.cli.telling import printable

    return printable(f"{message} [{reason}]" if reason else message)


def _hint(error: RunkonClientError, settings: Settings) -> str:
    reason = error.reason
    if any(violation.field == "gate_id" for violation in error.violations):
        reason = "GATE_NOT_FOUND"
    if reason in _LISTED:
        group, does = _LISTED[reason]
        return f"`{settings.command(group, 'list')}` {does}"
    if error.reason == "WORKFLOW_DELETED":
        return f"`{settings.command('workflows', 'put', 'FILE')}` brings it back"
    if error.reason == "ADMIN_REQUIRED":
        return "`runkon-server limits` and `runkon-server retention` work on the database itself"
    return ""


def print_document(value: object) -> None:
    """Print a value as one JSON document."""
    from runkon_client.cli.documents import json_line

    click.echo(json_line(value))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print aligned columns; `empty` is said on standard error when there are no rows."""
    rows = list(rows)
    if not rows:
        click.echo(empty, err=True)
        return
    head, *body = columns([header, *rows])
    click.echo(click.style(head, bold=True))
    for line in body:
        click.echo(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, each column as wide as its longest text; the last one is not padded."""
    from runkon_client.cli.telling import first_line, printable

    shown = [[printable(first_line(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
