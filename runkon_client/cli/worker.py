"""`runkon worker`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runkon_client.channel import resolve_endpoint
from runkon_client.cli.exits import explain
from runkon_client.cli.modules import load_actions, told_from_inside
from runkon_client.cli.numbers import Seconds
from runkon_client.cli.session import ServerCommand, Settings, print_document
from runkon_client.cli.worker_programs import program_options, serve_programs
from runkon_client.worker import Actions, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MIB = 1 << 20


def _script_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options about scripts; each but the first only matters beside it."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in reversed(
        (
            click.option(
                "--allow-scripts",
                "folder",
                metavar="DIR",
                type=folder,
                help="Run the scripts of workflows, in this folder.",
            ),
            click.option(
                "--sandbox",
                type=click.Choice(["auto", "require", "none"]),
                default="auto",
                show_default=True,
                help="auto: the best there is; require: start only with one; none: all rights.",
            ),
            click.option("--script-write", is_flag=True, help="Let scripts write to DIR."),
            click.option("--script-network", is_flag=True, help="Let scripts use the network."),
            click.option(
                "--script-read",
                metavar="PATH",
                multiple=True,
                type=click.Path(exists=True, path_type=Path),
                help="Let scripts read this too; may be repeated.",
            ),
            click.option(
                "--script-env",
                metavar="NAME",
                multiple=True,
                help="Hand this variable on to scripts; IDENTITY:NAME only to those that run `as` "
                "it, and with =VARIABLE behind it is taken from another one. May be repeated.",
            ),
            click.option(
                "--script-memory",
                metavar="MIB",
                type=click.IntRange(min=16),
                default=2048,
                show_default=True,
                help="Memory that each process of a script may use.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    cls=ServerCommand,
    epilog=explain(
        ok="stopped by SIGTERM or Ctrl-C, after its tasks were done",
        unavailable="never: a worker waits for its server",
    ),
)
@click.argument("module", required=False)
@click.option(
    "--module",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="Offer the actions of this module too. May be repeated.",
)
@click.option(
    "--concurrency",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Most tasks at a time.",
)
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    multiple=True,
    help="Serve runs whose label `queue` is NAME, and no others: `default` is for runs without the "
    "label, `*` for all. May be repeated.  [default: default]",
)
@click.option("--id", "worker_id", metavar="NAME", help="Its name, unique among those alive.")
@click.option(
    "--grace",
    "grace_s",
    default=30.0,
    show_default=True,
    type=Seconds(0),
    help="Seconds that tasks in hand are given when it is stopped; a second Ctrl-C gives none.",
)
@program_options
@_script_options
@click.option(
    "--github",
    "has_github",
    is_flag=True,
    help="Look after pr_approval and pr_checks gates on GitHub.  [token: GITHUB_TOKEN]",
)
@click.option(
    "--github-tokens",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tokens by the names that `as` uses, one `NAME=TOKEN` a line; for --github.",
)
@click.pass_obj
def worker(
    settings: Settings,
    /,
    *,
    module: str | None,
    modules: tuple[str, ...],
    concurrency: int,
    queues: tuple[str, ...],
    worker_id: str | None,
    grace_s: float,
    **offers: Any,  # noqa: ANN401 - the options of the functions that serve all else
) -> None:
    """Run a worker that offers the actions of MODULE: a `.py` file, or a name as in `import`.

    \b
    The module holds its actions in an attribute `actions`:
        from runkon_client import ActionOutput, Actions, Task
        actions = Actions()
        @actions.action("greet")
        def greet(task: Task) -> ActionOutput:
            return ActionOutput(context=f"Hello, {task.inputs['name']}!")

    Actions may also be programs of any language (--exec), agents with a command that answers them
    (--agents, --agent-command) and services (--http). With --allow-scripts it runs script steps,
    with --github it looks after the gates of pull requests. With any of these, MODULE may be left
    out.

    It waits for its server if there is none, and goes on working while its connection is broken.
    """  # noqa: D301 - `\b` is click's word for a paragraph that is not wrapped
    actions = _of_modules((*([] if module is None else [module]), *modules))
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s", level=logging.INFO)
    # Of httpx each request is a line, and requests are many.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_serve_scripts(actions, **offers))
            _serve_github(actions, **offers)
            serve_programs(actions, **offers)
            address = resolve_endpoint(settings.address).address
            working = Worker(
                settings.address,
                namespace=settings.namespace,
                principal=settings.principal,
                worker_id=worker_id,
                concurrency=concurrency,
                actions=actions,
                grace=timedelta(seconds=grace_s),
                queues=queues,
            )
        except ValueError as reason:
            raise click.UsageError(str(reason)) from reason
        if actions.is_empty:
            raise click.UsageError(
                "nothing to offer: give a MODULE, or an option that offers something"
            )
        # From here on a signal ends the worker in good order, also before it has begun.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: working.stop())
        _announce(settings, working, address)
        working.run_forever()


def _of_modules(modules: Iterable[str]) -> Actions:
    actions = Actions()
    for module in modules:
        try:
            found = load_actions(module)
        except click.UsageError:
            raise
        except Exception as error:
            click.echo(told_from_inside(error), nl=False, err=True)
            raise click.UsageError(f"{module} cannot be imported") from error
        try:
            actions.include(found)
        except ValueError as reason:
            raise click.UsageError(f"{module}: {reason}") from reason
    return actions


def _announce(settings: Settings, working: Worker, address: str) -> None:
    actions = working.actions
    if settings.as_json:
        offers = {
            "item_providers": actions.item_providers,
            "gate_types": actions.gate_types,
            "scripts": actions.has_scripts,
        }
        about: dict[str, Any] = {"worker_id": working.worker_id, "address": address}
        about |= {"queues": working.queues} if working.queues else {}
        about |= {"actions": actions.names}
        print_document(about | {name: value for name, value in offers.items() if value})
        return
    words = [
        *actions.names,
        *(f"items of {name}" for name in actions.item_providers),
        *(f"{name} gates" for name in actions.gate_types),
        *(["scripts"] if actions.has_scripts else []),
    ]
    names = ", ".join(name or "default" for name in working.queues)
    queues = f", queue {names}" if names else ""
    click.echo(f"worker {working.worker_id} for {address}{queues}: {', '.join(words)}")


@contextlib.contextmanager
def _serve_scripts(
    actions: Actions,
    *,
    folder: Path | None,
    sandbox: str,
    script_write: bool,
    script_network: bool,
    script_read: tuple[Path, ...],
    script_env: tuple[str, ...],
    script_memory: int,
    **_: object,
) -> Iterator[None]:
    if folder is None:
        if script_write or script_network or script_read or script_env or sandbox != "auto":
            raise click.UsageError("options about scripts need --allow-scripts DIR")
        yield
        return
    from runkon_client.worker.script_tasks import serve_scripts
    from runkon_client.worker.scripts import (
        SandboxMissingError,
        SandboxMode,
        ScriptLimits,
        open_scripts,
    )

    environments = environments_of(script_env)
    with contextlib.ExitStack() as stack:
        try:
            runner = stack.enter_context(
                open_scripts(
                    folder,
                    sandbox=SandboxMode(sandbox),
                    is_writable=script_write,
                    has_network=script_network,
                    readable=script_read,
                    environment=environments.pop("", {}),
                    environment_of=environments,
                    limits=ScriptLimits(memory_max_bytes=script_memory * _MIB),
                )
            )
        except SandboxMissingError as reason:
            raise click.ClickException(f"no sandbox: {reason}") from reason
        actions.scripts(serve_scripts(runner))
        yield


def environments_of(words: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What each identity is handed on, and under no name what all are: `[IDENTITY:]NAME[=FROM]`."""
    found: dict[str, dict[str, str]] = {}
    for word in words:
        target, _, source = word.partition("=")
        identity, _, name = target.rpartition(":")
        if (source or name) not in os.environ:
            raise click.UsageError(f"not set: {source or name}")
        found.setdefault(identity, {})[name] = os.environ[source or name]
    return found


def _serve_github(
    actions: Actions,
    *,
    has_github: bool,
    github_tokens: Path | None,
    **_: object,
) -> None:
    if not has_github:
        if github_tokens is not None:
            raise click.UsageError("--github-tokens needs --github")
        return
    try:
        from runkon_client.github import Tokens, add_github_gates
    except ModuleNotFoundError as reason:
        if reason.name != "httpx":
            raise
        raise click.ClickException("--github needs httpx: pip install 'runkon[github]'") from None

    tokens = Tokens.read(os.environ, github_tokens)
    add_github_gates(actions, tokens, api_url=os.environ.get("GITHUB_API_URL"))
