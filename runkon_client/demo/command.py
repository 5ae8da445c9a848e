"""`runkon demo`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runkon_client import RunkonClientError, SyncClient
from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.session import Settings, report
from runkon_client.cli.sources import read_source
from runkon_client.cli.watching import show_run
from runkon_client.demo.folders import default_data_dir, find_examples
from runkon_client.demo.processes import ChildFailedError, child
from runkon_client.demo.questions import agree, ask

if TYPE_CHECKING:
    from types import FrameType

    from runkon_client.demo.folders import Examples
    from runkon_client.demo.processes import Child
    from runkon_client.values import Gate

_SERVER_READY_S: Final = 90.0
_WORKER_READY_S: Final = 30.0
_TICKET: Final = "Add median(numbers) to stats.py"
_SERVER_READY: Final = re.compile(r"ready on (\S+)")
_WORKER_READY: Final = re.compile(r"worker ")


@click.command(
    epilog=explain(ok="the run completed", failed="the run failed, or the demo could not be set up")
)
@click.option("--yes", is_flag=True, help="Answer the gate as a matter of course.")
@click.option("--plain", is_flag=True, help="Print lines, draw nothing.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the database stays from one demo to the next.",
)
def demo(data_dir: Path | None, *, yes: bool, plain: bool) -> None:
    """Take the guided tour.

    Starts a server with a PostgreSQL of its own and a worker, stores a workflow that takes a
    ticket to a merged branch, and runs it on a small git repository in a temporary folder: with a
    step that fails at first, parallel reviews that find something, and a gate where it asks you.
    """
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("nobody can answer the gate: standard input is no terminal; --yes?")
    if shutil.which("git") is None:
        raise click.ClickException("the demo needs the program `git`, which is not installed")
    examples = find_examples()
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="runkon-demo-") as temporary:
        folder = Path(temporary)
        try:
            sys.exit(_tour(examples, folder, data_dir or default_data_dir(), yes=yes, plain=plain))
        except ChildFailedError as reason:
            raise click.ClickException(str(reason)) from reason
        except RunkonClientError as error:
            report(error, Settings())
            sys.exit(Exit.FAILED)
        except KeyboardInterrupt:
            click.echo("\nthe demo was interrupted", err=True)
            sys.exit(Exit.INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    """Unwind, so that the children are stopped."""
    sys.exit(128 + number)


def _tour(examples: Examples, folder: Path, data_dir: Path, *, yes: bool, plain: bool) -> Exit:
    began_s = time.monotonic()
    _say("1", f"starting a server with a PostgreSQL of its own, whose data stay in {data_dir}")
    options = ["dev", "--port", "0", "--data-dir", str(data_dir)]
    with child("server", "runkon_server.cli", options, folder) as server:
        address = _address_of(server)
        settings = Settings(address=address)
        _say("", f"it listens on {address} after {time.monotonic() - began_s:.1f} s")
        with settings.connect() as client:
            stored = client.put_workflow(read_source(str(examples.workflow))).workflow
            _say("2", f"stored {stored.name}, version {stored.version}: {stored.description}")
            options = ["worker", str(examples.worker), "--address", address]
            with child("worker", "runkon_client.cli", options, folder) as worker:
                worker.wait_for_match(_WORKER_READY, within_s=_WORKER_READY_S)
                _say("3", f"started a worker for its actions: {examples.worker.name}")
                with server.guarding(), worker.guarding():
                    return _run(client, settings, folder, stored.name, yes=yes, plain=plain)


def _address_of(server: Child) -> str:
    found = server.wait_for_match(_SERVER_READY, within_s=_SERVER_READY_S)
    return found[1]


def _run(
    client: SyncClient, settings: Settings, folder: Path, name: str, *, yes: bool, plain: bool
) -> Exit:
    """Start the run, follow it to its end, show what it came to."""
    repository = folder / "repository"
    inputs = {"ticket": _TICKET, "repository": str(repository)}
    handle = client.start_run(name, inputs=inputs, trigger="demo")
    _say("4", f"started run {handle.id}: {_TICKET}\n")

    def answer(gate: Gate) -> None:
        (agree if yes else ask)(client, gate)

    code = show_run(settings, handle, plain=plain, on_gate=answer)
    if repository.exists():
        _say("\n5", "what it came to, as git tells it:\n")
        click.echo(_commit_log(repository))
    click.secho(f"the run {handle.get().status}", bold=True)
    return code


def _commit_log(repository: Path) -> str:
    log = ["git", "log", "--oneline", "--graph", "--decorate", "--all"]
    # Called from a hook, git's variables would lead to the repository of the hook.
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        log, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout or done.stderr


def _say(number: str, text: str) -> None:
    click.secho(f"{number:>1} ", nl=False, bold=True)
    click.echo(text)
