"""`runkon worker`."""

from __future__ import annotations

import logging
import signal
from datetime import timedelta

import click

from runkon_client.channel import resolve_endpoint
from runkon_client.cli.exits import explain
from runkon_client.cli.modules import load_actions
from runkon_client.cli.session import ServerCommand, Settings, print_document
from runkon_client.worker import Worker


@click.command(
    cls=ServerCommand,
    epilog=explain(
        ok="stopped by SIGTERM or Ctrl-C, after its tasks were done",
        unavailable="never: a worker waits for its server",
    ),
)
@click.argument("module")
@click.option(
    "--concurrency",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Most tasks at a time.",
)
@click.option("--id", "worker_id", metavar="NAME", help="Its name, unique among those alive.")
@click.option(
    "--grace",
    "grace_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that tasks in hand are given when it is stopped; a second Ctrl-C gives none.",
)
@click.pass_obj
def worker(
    settings: Settings, module: str, concurrency: int, worker_id: str | None, grace_s: float
) -> None:
    """Run a worker that offers the actions of MODULE: a `.py` file, or a name as in `import`.

    \b
    The module holds its actions in an attribute `actions`:
        from runkon_client import ActionOutput, Actions, Task
        actions = Actions()
        @actions.action("greet")
        def greet(task: Task) -> ActionOutput:
            return ActionOutput(context=f"Hello, {task.inputs['name']}!")

    It waits for its server if there is none, and goes on working while its connection is broken.
    """  # noqa: D301 - `\b` is click's word for a paragraph that is not wrapped
    actions = load_actions(module)
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s", level=logging.INFO)
    try:
        address = resolve_endpoint(settings.address).address
        working = Worker(
            settings.address,
            namespace=settings.namespace,
            principal=settings.principal,
            worker_id=worker_id,
            concurrency=concurrency,
            actions=actions,
            grace=timedelta(seconds=grace_s),
        )
    except ValueError as reason:
        raise click.UsageError(str(reason)) from reason
    # From here on a signal ends the worker in good order, also before it has begun.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: working.stop())
    if settings.as_json:
        about = {"worker_id": working.worker_id, "address": address, "actions": actions.names}
        print_document(about)
    else:
        click.echo(f"worker {working.worker_id} for {address}: {', '.join(actions.names)}")
    working.run_forever()
