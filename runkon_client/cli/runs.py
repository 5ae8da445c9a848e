"""`runkon runs`: list, show, watch, cancel, resume, items."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.exits import WATCHED_RUN, explain
from runkon_client.cli.filters import pointing_into
from runkon_client.cli.naming import find_run, find_run_id, find_step
from runkon_client.cli.session import ServerGroup, Settings, print_document, print_table
from runkon_client.cli.telling import between, printable, span
from runkon_client.values import FanOutItemStatus, StepRole

if TYPE_CHECKING:
    from runkon_client.values import FanOutItem, Run

_EPILOG: Final = explain()
_FILTER: Final = click.option(
    "--filter",
    "filter_text",
    default="",
    metavar="FILTER",
    help="Such as `status = waiting AND labels.team = core AND create_time > now-1d`.",
)


@click.group(cls=ServerGroup)
def runs() -> None:
    """List, show, watch, cancel and resume runs.

    RUN is a run's id, or the key that it was started with.
    """


@runs.command("list", epilog=_EPILOG)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest.")
@_FILTER
@click.pass_obj
def list_runs(settings: Settings, limit: int, filter_text: str, *, oldest_first: bool) -> None:
    """List runs, newest first."""
    with pointing_into(filter_text, settings), settings.connect() as client:
        pages = client.list_runs(filter_text, oldest_first=oldest_first, page_size=min(limit, 500))
        found = list(itertools.islice(pages, limit))
    if settings.as_json:
        print_document(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", "AT"),
        (
            (run.id, run.workflow_name, run.status, _ago(run, now), _took(run, now), _place(run))
            for run in found
        ),
        empty="no such runs" if filter_text else "no runs yet; `runkon run FILE` starts one",
    )


@runs.command(epilog=_EPILOG)
@_FILTER
@click.pass_obj
def count(settings: Settings, filter_text: str) -> None:
    """Count runs: exactly up to 100,000, `N or more` beyond."""
    with pointing_into(filter_text, settings), settings.connect() as client:
        counted = client.count_runs(filter_text)
    if settings.as_json:
        print_document(counted)
    else:
        click.echo(f"{counted.count}" if counted.is_exact else f"{counted.count} or more")


@runs.command(epilog=_EPILOG)
@click.argument("run")
@click.pass_obj
def show(settings: Settings, run: str) -> None:
    """Show one run with its steps."""
    with settings.connect() as client:
        found = find_run(client, run, full=True)
        handle = client.run(found.id)
        steps, gates = list(handle.steps()), [listed.gate for listed in handle.gates()]
    if settings.as_json:
        print_document({"run": found, "steps": steps, "gates": gates})
        return
    from runkon_client.cli.watching import print_run

    for name, text in _facts(found):
        click.echo(f"{name:<10}{printable(text)}")
    print_run(settings, found, steps, gates)


@runs.command(epilog=WATCHED_RUN)
@click.argument("run")
@click.option("--plain", is_flag=True, help="Print lines, draw nothing.")
@click.option(
    "--after",
    default=0,
    metavar="SEQ",
    type=click.IntRange(0, 2**63 - 1),
    help="Only events above this sequence.",
)
@click.pass_obj
def watch(settings: Settings, run: str, after: int, *, plain: bool) -> None:
    """Follow a run from its start until it ends."""
    from runkon_client.cli.watching import watch_run

    with settings.connect() as client:
        run_id = find_run_id(client, run)
        sys.exit(watch_run(settings, client.run(run_id), plain=plain, after_seq=after))


@runs.command(epilog=_EPILOG)
@click.argument("run")
@click.option("--reason", default="", help="Why, for people.")
@click.option("--force", is_flag=True, help="Wait for nothing and skip the `always` section.")
@click.pass_obj
def cancel(settings: Settings, run: str, reason: str, *, force: bool) -> None:
    """Ask for a run's end: its work is stopped, then its `always` section runs."""
    with settings.connect() as client:
        run_id = find_run_id(client, run)
        cancelled = client.run(run_id).cancel(reason, force=force)
    if settings.as_json:
        print_document(cancelled)
    else:
        click.echo(f"{cancelled.id} {cancelled.status}")


@runs.command(epilog=_EPILOG)
@click.argument("run")
@click.option("--undo", is_flag=True, help="Show it again.")
@click.pass_obj
def dismiss(settings: Settings, run: str, *, undo: bool) -> None:
    """Mark a run that has ended as dealt with; nothing else about it changes."""
    with settings.connect() as client:
        dismissed = client.run(find_run_id(client, run)).dismiss(undo=undo)
    if settings.as_json:
        print_document(dismissed)
    else:
        click.echo(f"{dismissed.id} {'dismissed' if dismissed.dismissed else 'shown'}")


@runs.command(epilog=_EPILOG)
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, run: str, *, yes: bool) -> None:
    """Delete a run that has ended, with its child runs, events and steps, for good."""
    with settings.connect() as client:
        run_id = find_run_id(client, run)
        if not yes:
            click.confirm(f"Delete run {run_id} and all below it?", abort=True, err=True)
        count = client.run(run_id).delete()
    if settings.as_json:
        print_document({"run_id": run_id, "deleted": count})
    else:
        click.echo(f"{run_id} deleted, {count} runs in all" if count else f"{run_id} was gone")


@runs.command(epilog=WATCHED_RUN)
@click.argument("run")
@click.option("--from", "step", default="", metavar="STEP", help="Repeat from this step on.")
@click.option("--restart", is_flag=True, help="Repeat everything, also of a completed run.")
@click.option("--watch", "is_watched", is_flag=True, help="Follow the run until it ends.")
@click.option("--plain", is_flag=True, help="With --watch: print lines, draw nothing.")
@click.pass_obj
def resume(
    settings: Settings, *, run: str, step: str, restart: bool, is_watched: bool, plain: bool
) -> None:
    """Take a failed run up again: repeat the steps that failed it.

    STEP is a step's id or its name; of several steps of one name the first is meant.
    """
    if step and restart:
        raise click.UsageError("--restart repeats everything; it does not go with --from")
    with settings.connect() as client:
        handle = client.run(find_run_id(client, run))
        from_step = find_step(handle, step).id if step else ""
        resumed = handle.resume(from_step=from_step, restart=restart)
        if is_watched:
            from runkon_client.cli.watching import watch_run

            sys.exit(watch_run(settings, handle, plain=plain))
    if settings.as_json:
        print_document(resumed)
    else:
        click.echo(f"{resumed.id} {resumed.status}, epoch {resumed.epoch}")


@runs.command(epilog=_EPILOG)
@click.argument("run")
@click.argument("step", required=False, default="")
@click.option(
    "--status",
    type=click.Choice([each.value for each in FanOutItemStatus if each.value != "unknown"]),
    help="Items in this state only.",
)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@click.pass_obj
def items(settings: Settings, run: str, step: str, status: str | None, limit: int) -> None:
    """List the items of a foreach: where each is, its run, why it failed.

    STEP is a step's id or its name, which means the newest of that name; it may be left out when
    the run has one foreach only.
    """
    wanted = None if status is None else FanOutItemStatus(status)
    with settings.connect() as client:
        handle = client.run(find_run_id(client, run))
        found = find_step(handle, step, StepRole.FOREACH)
        listed = list(itertools.islice(handle.items(found.id, status=wanted), limit))
    if settings.as_json:
        print_document(listed)
        return
    now = datetime.now(UTC)
    print_table(
        ("ITEM", "TYPE", "STATUS", "RUN", "TOOK", "ABOUT"),
        (
            (
                item.item_ref or item.item_id,
                item.item_type,
                item.status,
                item.child_run_id,
                between(item.dispatched_at, item.completed_at or now),
                item.error or _waits(item),
            )
            for item in listed
        ),
        empty="no such items",
    )


def _waits(item: FanOutItem) -> str:
    """What its child run waits for, or the item itself."""
    if item.blocked_on is not None:
        return f"waits at gate {item.blocked_on.gate_id}"
    if item.blockers and item.status is FanOutItemStatus.PENDING:
        return f"waits for {len(item.blockers)} others"
    return ""


def _facts(run: Run) -> list[tuple[str, str]]:
    """What is not said by the tree, a line each."""
    version = f"@{run.workflow_version}" if run.workflow_version else " (its own source)"
    facts = [("run", run.id), ("workflow", run.workflow_name + version)]
    facts += [("key", run.key)] if run.key else []
    facts.append(("started", f"{_instant(run.started_at)} by {run.started_by}"))
    facts += [("parent", run.parent_workflow_run_id)] if run.parent_workflow_run_id else []
    facts += [("epoch", str(run.epoch))] if run.epoch > 1 else []
    facts += [("dry run", "yes")] if run.dry_run else []
    facts += [("label", f"{name}={value}") for name, value in run.labels.items()]
    facts += [("input", f"{name}={value}") for name, value in run.inputs.items()]
    if run.metrics is not None and run.metrics.cost_usd:
        facts.append(("cost", f"${run.metrics.cost_usd:.4f}"))
    return facts


def _instant(at: datetime | None) -> str:
    return "not yet" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _ago(run: Run, now: datetime) -> str:
    return "" if run.created_at is None else f"{span(now - run.created_at)} ago"


def _took(run: Run, now: datetime) -> str:
    return between(run.started_at, run.ended_at or now)


def _place(run: Run) -> str:
    if run.current_step is not None:
        below = run.current_step.workflow_chain[run.depth + 1 :]
        return " / ".join([*below, run.current_step.step_name])
    return run.error
