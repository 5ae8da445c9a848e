"""`runkon gates`: list, watch, approve, reject, report-pr."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.documents import json_line
from runkon_client.cli.exits import explain
from runkon_client.cli.naming import is_run_id
from runkon_client.cli.pairs import read_pairs
from runkon_client.cli.session import (
    ServerGroup,
    Settings,
    print_document,
    print_table,
    require_server,
)
from runkon_client.cli.telling import printable, span
from runkon_client.values import (
    CheckState,
    GateState,
    PullRequest,
    PullRequestApproval,
    PullRequestCheck,
    ReviewDecision,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runkon_client import SyncClient, SyncGateHandle
    from runkon_client.values import Gate

_EPILOG: Final = explain()
_DECISIONS: Final = tuple(each for each in ReviewDecision if each is not ReviewDecision.UNKNOWN)


def _read_checks(
    _context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]
) -> tuple[PullRequestCheck, ...]:
    """Checks from `NAME=STATE`; names may have signs of equality."""
    found = []
    for word in words:
        name, _, state = word.rpartition("=")
        if not name or state not in _STATES:
            raise click.BadParameter(f"{word!r} is not NAME={'|'.join(_STATES)}")
        found.append(PullRequestCheck(name=name, state=CheckState(state)))
    return tuple(found)


_STATES: Final = tuple(each.value for each in CheckState if each is not CheckState.UNKNOWN)


@click.group(cls=ServerGroup)
def gates() -> None:
    """List and watch the gates that wait, approve and reject; tell of pull requests."""


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


@gates.command(epilog=_EPILOG)
@click.option("--run", "run_id", default="", metavar="RUN", help="Gates of this run only.")
@click.option("--type", "gate_type", default="", metavar="TYPE", help="Gates of this type only.")
@click.option("--workflow", default="", metavar="NAME", help="Gates of this workflow's runs only.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=read_pairs,
    help="Gates of runs that have this label; repeat it for more.",
)
@click.pass_obj
def watch(
    settings: Settings, run_id: str, gate_type: str, workflow: str, labels: dict[str, str]
) -> None:
    """Show the gates that wait, then every gate that opens, gets a vote or is decided."""
    with settings.connect() as client:
        require_server(client)
        with client.gates.watch(
            run_id=run_id, gate_type=gate_type, workflow_name=workflow, labels=labels
        ) as changes:
            for each in changes:
                click.echo(json_line(each.gate) if settings.as_json else _change(each.gate))


def _change(gate: Gate) -> str:
    """How a gate stands, in one line; who wants to answer one needs its id."""
    when = gate.resolved_at or (gate.votes[-1].at if gate.votes else None) or gate.opened_at
    time = f"{when.astimezone():%H:%M:%S}" if when else " " * 8
    who = f" by {printable(gate.resolved_by)}" if gate.resolved_by else ""
    votes = len(gate.votes)
    state = f"{gate.state} {votes}/{gate.approvers}" if votes and not who else f"{gate.state}{who}"
    question = printable(" ".join(gate.prompt.split()))
    return f"{time}  {state:<16}  {gate.id}  {gate.display_name}: {gate.name}  {question}".rstrip()


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


@gates.command("report-pr", epilog=_EPILOG)
@click.argument("gate", metavar="GATE|RUN")
@click.argument("name", required=False, default="")
@click.option("--head", required=True, metavar="COMMIT", help="The commit its branch ends in.")
@click.option("--author", default="", metavar="NAME", help="Whose approval does not count.")
@click.option(
    "--approved-by",
    "approvals",
    multiple=True,
    metavar="NAME[=COMMIT]",
    help="Who approved it, and which commit if not the head; repeat it for more.",
)
@click.option(
    "--decision",
    type=click.Choice([each.value.replace("_", "-") for each in _DECISIONS]),
    help="What the forge makes of all reviews.",
)
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="NAME=STATE",
    callback=_read_checks,
    help="A check: pending, succeeded, skipped or failed; give all of them.",
)
@click.option("--url", default="", help="Where a person can look at it.")
@click.pass_obj
def report_pr(
    settings: Settings,
    *,
    gate: str,
    name: str,
    head: str,
    author: str,
    approvals: tuple[str, ...],
    decision: str | None,
    checks: tuple[PullRequestCheck, ...],
    url: str,
) -> None:
    """Tell a pr_approval or pr_checks gate how its pull request stands. GATE, RUN and NAME as for
    approve.
    """  # noqa: D205 - this is the help, which click wraps anew
    seen = PullRequest(
        head_commit=head,
        author=author,
        approvals=tuple(_approval(each, head) for each in approvals),
        review_decision=ReviewDecision((decision or "unknown").replace("-", "_")),
        checks=checks,
        url=url,
    )
    with settings.connect() as client:
        reported = find_gate(client, gate, name).report_pull_request(seen)
    if settings.as_json:
        print_document(reported)
    elif reported.pending_reason:
        click.echo(f"{reported.gate.name} waits: {printable(reported.pending_reason)}")
    else:
        click.echo(f"{reported.gate.name} {reported.gate.state}")


def _approval(word: str, head: str) -> PullRequestApproval:
    reviewer, _, commit = word.partition("=")
    return PullRequestApproval(reviewer=reviewer, commit=commit or head)


def find_gate(client: SyncClient, gate: str, name: str) -> SyncGateHandle:
    """The gate that the words mean.

    Raises:
        click.UsageError: a run was named that waits at no gate, or at several; or nothing, as by a
            variable of a shell that was never set.
    """
    if not gate:
        raise click.UsageError("GATE is empty: a gate is named by its id, or by its run")
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
