"""The command line `runkon`: start runs, watch them, answer gates, keep workflows, run workers.

Each command lives in a module of its own that is imported when it is asked for: `runkon --help`
needs neither gRPC nor the drawing library. Those of `EXTENSIONS` come from the server's package, by
way of its entry points.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.extensions import load_extension
from runkon_client.cli.host import Host
from runkon_client.cli.session import server_options

if TYPE_CHECKING:
    from collections.abc import Callable


def _run() -> click.Command:
    from runkon_client.cli.run import run

    return run


def _runs() -> click.Command:
    from runkon_client.cli.runs import runs

    return runs


def _explain() -> click.Command:
    from runkon_client.cli.explaining import explain as explain_run

    return explain_run


def _top() -> click.Command:
    from runkon_client.cli.top import top

    return top


def _gates() -> click.Command:
    from runkon_client.cli.gates import gates

    return gates


def _events() -> click.Command:
    from runkon_client.cli.events import events

    return events


def _workflows() -> click.Command:
    from runkon_client.cli.workflows import workflows

    return workflows


def _graph() -> click.Command:
    from runkon_client.cli.graphing import graph

    return graph


def _worker() -> click.Command:
    from runkon_client.cli.worker import worker

    return worker


def _workers() -> click.Command:
    from runkon_client.cli.workers import workers

    return workers


def _limits() -> click.Command:
    from runkon_client.cli.limits import limits

    return limits


def _replicas() -> click.Command:
    from runkon_client.cli.replicas import replicas

    return replicas


def _retention() -> click.Command:
    from runkon_client.cli.retention import retention

    return retention


def _demo() -> click.Command:
    from runkon_client.demo.command import demo

    return demo


COMMANDS: Final[dict[str, tuple[Callable[[], click.Command], str]]] = {
    "run": (_run, "Start a run of a workflow, and watch it with --watch."),
    "runs": (_runs, "List, show, watch, cancel and resume runs."),
    "explain": (_explain, "Say why a run is not moving, and what would move it."),
    "top": (_top, "Show what is going on now: active runs and workers."),
    "events": (_events, "Print the events of a run or of all runs, and follow them."),
    "gates": (_gates, "List and watch gates, approve, reject, report pull requests."),
    "workflows": (_workflows, "Store, list, show and check workflows."),
    "worker": (_worker, "Run a worker: actions, items, gates, scripts."),
    "workers": (_workers, "List the workers that are connected, with what they serve."),
    "limits": (_limits, "Limit actions: how many tasks at once, how many per second."),
    "replicas": (_replicas, "List the servers of the database, with what is theirs."),
    "retention": (_retention, "Say how long runs are kept after their end."),
    "graph": (_graph, "Draw a workflow file or a run."),
    "demo": (_demo, "Take the guided tour: a server, a worker, a workflow with a gate."),
}
"""How each command is imported, and its line in the help."""

EXTENSIONS: Final[dict[str, str]] = {
    "check": "Check workflow files, and say what is wrong with them.",
    "fmt": "Bring workflow files into the canonical layout.",
    "lsp": "Serve editors: diagnostics, completion, hover, formatting.",
}
"""The line in the help of each command from elsewhere: nothing is imported to show it."""


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class LazyGroup(click.Group):
    """A group that imports its commands when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of the table."""
        return [*COMMANDS, *EXTENSIONS]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """The command of that name; None if there is none."""
        if cmd_name in EXTENSIONS:
            return load_extension(cmd_name)
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else entry[0]()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; of a name that there is not, what may have been meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            from difflib import get_close_matches

            for close in get_close_matches(name, self.list_commands(ctx), n=1):
                ctx.fail(f"No such command {name!r}. Did you mean {close!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; output that nobody reads, or that finds no room, ends it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is left in the buffers goes nowhere, rather than failing once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(Exit.UNREAD) from None
        except OSError as reason:
            if reason.errno not in _NO_ROOM:
                raise
            raise click.UsageError(f"cannot write the output: {reason.strerror}", ctx) from reason

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands from the tables, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Commands on workflow files, without a server"):
            formatter.write_dl(list(EXTENSIONS.items()))


@click.group(
    cls=LazyGroup,
    params=server_options(),
    epilog=explain(
        failed="the run failed, or problems were found",
        run_cancelled="the run was cancelled",
        unread="nobody read the rest of the output",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="runkon")
@click.pass_context
def main(context: click.Context) -> None:
    """Start and follow durable workflows, and answer the gates where they wait for a person."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign shows another, rather than ending the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if os.environ.get("NO_COLOR"):
        context.color = False  # of every command; click itself only looks for a terminal
    context.obj = Host()
