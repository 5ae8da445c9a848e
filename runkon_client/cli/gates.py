"""`runkon gates`: list, approve, reject."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.naming import is_run_id
from runkon_client.cli.session import ServerGroup, Settings, print_document, print_table
from runkon_client.cli.telling import span
from runkon_client.values import GateState

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runkon_client import SyncClient, SyncGateHandle
    from runkon_client.values import Gate

_EPILOG: Final = explain()


@click.group(cls=ServerGroup)
def gates() -> None:
    """List the gates that wait, approve and reject."""


@gates.command("list", epilog=_EPILOG)
@click.option("--all", "every", is_flag=True, help="Also those that were answered or ran out.")
@click.option("--run", "run_id", default="", metavar="RUN", help="Gates of this run only.")
@click.option("--workflow", default="", metavar="NAME", help="Gates of this workflow's runs only.")
@click.pass_obj
def list_gates(settings: Settings, run_id: str, workflow: str, *, every: bool) -> None:
    """List the gates that wait for an answer, the oldest first."""
    state = None if every else GateState.PENDING
    with settings.connect() as client:
        listed = client.gates(run_id=run_id, workflow_name=workflow, state=state)
        found = [each.gate for each in listed]
    if settings.as_json:
        print_document(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("GATE", "NAME", "WORKFLOW", "STATE", "WAITS", "OPTIONS", "QUESTION"),
        (
            (
                gate.id,
                gate.name,
                gate.display_name,
                gate.state,
                _waited(gate, now),
                ", ".join(option.key for option in gate.options),
                gate.prompt,
            )
            for gate in found
        ),
        empty="no gate waits for an answer",
    )


def _target(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that name a gate, and what can be said in either case."""
    for parameter in (
        click.option("--on-behalf-of", default="", metavar="NAME", help="Whom you act for."),
        click.option("--feedback", default="", metavar="TEXT", help="Words for the next steps."),
        click.argument("name", required=False, default=""),
        click.argument("gate", metavar="GATE|RUN"),
    ):
        command = parameter(command)
    return command


@gates.command(epilog=_EPILOG)
@_target
@click.option(
    "--select",
    "selections",
    multiple=True,
    metavar="KEY",
    help="An option of the gate; repeat it for more.",
)
@click.pass_obj
def approve(
    settings: Settings,
    *,
    gate: str,
    name: str,
    feedback: str,
    on_behalf_of: str,
    selections: tuple[str, ...],
) -> None:
    """Let a run go on: GATE is a gate's id; or RUN a run's id or key, with the gate's NAME, which
    may be left out when the run waits at one gate only.
    """  # noqa: D205 - this is the help, which click wraps anew
    with settings.connect() as client:
        handle = find_gate(client, gate, name)
        answered = handle.approve(feedback, selections=selections, on_behalf_of=on_behalf_of)
    _say(settings, answered)


@gates.command(epilog=_EPILOG)
@_target
@click.pass_obj
def reject(settings: Settings, gate: str, name: str, feedback: str, on_behalf_of: str) -> None:
    """Do not let a run go on: its body ends here. GATE, RUN and NAME as for approve."""
    with settings.connect() as client:
        handle = find_gate(client, gate, name)
        answered = handle.reject(feedback, on_behalf_of=on_behalf_of)
    _say(settings, answered)


def find_gate(client: SyncClient, gate: str, name: str) -> SyncGateHandle:
    """The gate that the words mean.

    Raises:
        click.UsageError: a run was named that waits at no gate, or at several.
    """
    if not name and not is_run_id(gate):
        return client.gate(gate)
    run = client.run(gate if is_run_id(gate) else client.get_run(key=gate).id)
    if name:
        return run.gate(name)
    waiting = list(run.gates(state=GateState.PENDING))
    if len(waiting) != 1:
        names = ", ".join(each.gate.name for each in waiting)
        what = f"at several gates, say which: {names}" if waiting else "at no gate"
        raise click.UsageError(f"run {gate} waits {what}")
    return waiting[0]


def _say(settings: Settings, gate: Gate) -> None:
    if settings.as_json:
        print_document(gate)
    elif gate.state is GateState.PENDING:
        votes = sum(vote.decision == "approve" for vote in gate.votes)
        click.echo(f"{gate.name}: {votes} of {gate.approvers} approvals")
    else:
        click.echo(f"{gate.name} {gate.state}")


def _waited(gate: Gate, now: datetime) -> str:
    return "" if gate.opened_at is None else span((gate.resolved_at or now) - gate.opened_at)
