"""Why a run is not moving, from its rows, and what would move it.

What is awaited is told apart by whether time alone brings it. All texts are sentences for people;
whoever branches on them takes the kind instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from shlex import quote
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

ENDED: Final = ("completed", "failed", "cancelled")
_TAKEN_WITHIN_S: Final = 5.0
"""A run that is ready is normally taken up long before."""


class BlockerKind(StrEnum):
    """What a run waits for; the names are those of the contract."""

    START_DELAY = "start_delay"
    GATE = "gate"
    QUEUED_TASK = "queued_task"
    LEASED_TASK = "leased_task"
    RETRY_DELAY = "retry_delay"
    CHILD_RUN = "child_run"
    LOST_OWNER = "lost_owner"
    NOT_TAKEN = "not_taken"
    UNAPPLIED_FACTS = "unapplied_facts"
    GRACE = "grace"
    DEFINITION = "definition"
    NEEDS_RESUME = "needs_resume"
    TIMER = "timer"
    LIMITED = "limited"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitInUse:
    """What was set for an action, and how much of it is in use."""

    action: str
    concurrency: int | None
    """Tasks that may be with workers at once; None: any number."""
    per_s: float | None
    """Tasks that may be handed out in a second; None: any number."""
    running: int
    """Tasks that are with workers."""
    queued: int
    next_at: datetime | None
    """When the rate lets the next task out; in the past if it does now. None without a rate."""

    def reached(self, now: datetime) -> list[str]:
        """What lets no further task out, in words; nothing if one may go."""
        found = []
        if self.concurrency is not None and self.running >= self.concurrency:
            found.append(f"{self.running} are running of {self.concurrency} at once")
        if self.per_s is not None and self.next_at is not None and self.next_at > now:
            found.append(f"of {self.per_s:g} per second, the next goes at {self.next_at:%F %T} UTC")
        return found

    def earliest_at(self, now: datetime, place: int) -> datetime | None:
        """When the rate lets the task at this place of the queue out at the earliest.

        None: the rate holds none up now, or holds it up for longer than anybody can tell.
        """
        if self.per_s is None or self.next_at is None or self.next_at <= now:
            return None
        try:
            return self.next_at + timedelta(seconds=max(0, place - 1) / self.per_s)
        except (OverflowError, ZeroDivisionError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """A task that has not been reported, with who could do it."""

    id: str
    step_id: str
    kind: str
    action: str
    state: str
    attempt: int
    delivery: int
    worker_id: str | None
    created_at: datetime
    lease_until: datetime | None
    deadline_at: datetime | None
    is_cancelled: bool
    queue_position: int
    workers: int
    last_worker_at: datetime | None
    is_built_in: bool = False
    """Whether every server does it by itself."""
    limit: LimitInUse | None = None

    def earliest_at(self, now: datetime) -> datetime | None:
        """When a limit's rate lets it out at the earliest; None if none holds it up."""
        return None if self.limit is None else self.limit.earliest_at(now, self.queue_position)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTimer:
    """A timer that has not fired."""

    kind: str
    step_id: str | None
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingGate:
    """A gate that waits for its decision."""

    id: str
    step_id: str
    name: str
    gate_type: str
    approvals: int
    approvers: int
    exclude_starter: bool
    opened_at: datetime
    deadline_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChild:
    """A child run that has not ended."""

    run_id: str
    workflow_name: str
    step_id: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A run as its rows have it at one moment."""

    run_id: str
    workflow_name: str
    status: str
    now: datetime
    created_at: datetime
    ended_at: datetime | None = None
    scheduled_at: datetime | None = None
    owner_token: str | None = None
    is_owner_alive: bool = False
    lease_until: datetime | None = None
    ready_at: datetime | None = None
    has_unapplied_facts: bool = False
    is_replica_alive: bool = True
    """Whether any replica is connected to the database."""
    definition_problem: str | None = None
    step_names: dict[str, str]
    """Of the open steps, by id."""
    tasks: Sequence[OpenTask] = ()
    timers: Sequence[OpenTimer] = ()
    gates: Sequence[PendingGate] = ()
    children: Sequence[OpenChild] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that a run waits for; `subject` is the id of its task, gate or child run."""

    kind: BlockerKind
    text: str
    remedy: str = ""
    needs_action: bool = False
    step_id: str = ""
    step_name: str = ""
    since: datetime | None = None
    until: datetime | None = None
    subject: str = ""


def replica_name(owner_token: str) -> str:
    """How logs and people call the replica of this token."""
    return owner_token[-6:].lower()


def find_blockers(run: Standing) -> list[Blocker]:
    """What the run waits for, whatever takes somebody's action first; nothing once it has ended."""
    if run.status in ENDED:
        return []
    found = [*_of_definition(run), *_of_owner(run), *_of_gates(run), *_of_tasks(run)]
    found += [*_of_children(run), *_of_timers(run)]
    named = (replace(each, step_name=run.step_names.get(each.step_id, "")) for each in found)
    return sorted(named, key=lambda each: not each.needs_action)


def headline(run: Standing, blockers: Sequence[Blocker]) -> str:
    """All of it in one sentence."""
    if run.status in ENDED:
        hint = (
            "; `runkon runs resume` would repeat what failed it" if run.status == "failed" else ""
        )
        return f"the run has ended, {run.status}{hint}"
    if not blockers:
        return "the run is being worked on"
    more = f", and {len(blockers) - 1} more" if len(blockers) > 1 else ""
    return blockers[0].text + more


def _of_definition(run: Standing) -> Iterator[Blocker]:
    if run.definition_problem is not None:
        yield Blocker(
            kind=BlockerKind.DEFINITION,
            text=f"its definition cannot be loaded: {run.definition_problem}",
            remedy="run a release of the server that knows it, or cancel the run",
            needs_action=True,
        )
    if run.status == "needs_resume":
        yield Blocker(
            kind=BlockerKind.NEEDS_RESUME,
            text="the run was set aside and goes on only when somebody resumes it",
            remedy=f"runkon runs resume {run.run_id}",
            needs_action=True,
        )


def _of_owner(run: Standing) -> Iterator[Blocker]:
    """Who should go on with the run, and does not."""
    if run.owner_token is not None:
        name = replica_name(run.owner_token)
        is_over = run.lease_until is not None and run.lease_until <= run.now
        if is_over or not run.is_owner_alive:
            yield _lost_owner(run, name, is_over=is_over)
        elif run.has_unapplied_facts:
            yield Blocker(
                kind=BlockerKind.UNAPPLIED_FACTS,
                text=f"replica {name} is about to apply what was recorded",
            )
        return
    if run.ready_at is None or run.ready_at > run.now:
        return
    waited_s = (run.now - run.ready_at).total_seconds()
    is_alone = not run.is_replica_alive
    overdue = f" for {waited_s:.0f} s" if waited_s > _TAKEN_WITHIN_S else ""
    yield Blocker(
        kind=BlockerKind.NOT_TAKEN,
        text="no replica is running"
        if is_alone
        else f"the run is ready{overdue}, and no replica has taken it up yet",
        remedy="start a replica: runkon-server serve" if is_alone else "",
        needs_action=is_alone,
        since=run.ready_at,
    )


def _lost_owner(run: Standing, name: str, *, is_over: bool) -> Blocker:
    gone = "is silent" if run.is_owner_alive else "is gone"
    when = "another one may take it now" if is_over else "its lease has not run out yet"
    return Blocker(
        kind=BlockerKind.LOST_OWNER,
        text=f"replica {name}, which has the run, {gone}; {when}",
        remedy="" if run.is_replica_alive else "start a replica: runkon-server serve",
        needs_action=not run.is_replica_alive,
        until=None if is_over else run.lease_until,
    )


def _of_gates(run: Standing) -> Iterator[Blocker]:
    for gate in run.gates:
        missing = max(1, gate.approvers - gate.approvals)
        votes = f"{missing} more approvals" if missing > 1 else "an approval"
        so_far = f" ({gate.approvals} of {gate.approvers} so far)" if gate.approvers > 1 else ""
        who = "anybody but whoever started the run" if gate.exclude_starter else "anybody"
        awaited = votes if gate.gate_type.startswith("human") else f"its {gate.gate_type}"
        yield Blocker(
            kind=BlockerKind.GATE,
            text=f"gate `{gate.name}` waits for {awaited}{so_far}",
            remedy=f"{who} may decide: runkon gates approve {run.run_id} {quote(gate.name)}",
            needs_action=True,
            step_id=gate.step_id,
            since=gate.opened_at,
            until=gate.deadline_at,
            subject=gate.id,
        )


def _of_tasks(run: Standing) -> Iterator[Blocker]:
    for task in run.tasks:
        if task.kind == "gate" and task.state == "queued" and not task.workers:
            continue  # its gate can be decided without a worker, and says so
        known = Blocker(
            kind=BlockerKind.QUEUED_TASK if task.state == "queued" else BlockerKind.LEASED_TASK,
            text="",
            step_id=task.step_id,
            since=task.created_at,
            until=task.deadline_at,
            subject=task.id,
        )
        if task.state == "leased":
            stops = ", which was told to stop" if task.is_cancelled else ""
            text = f"worker {task.worker_id} has {_named(task)}{stops}"
            yield replace(known, text=text, until=task.deadline_at or task.lease_until)
        else:
            yield _limited(known, task, run.now) or _queued(known, task)


def _queued(known: Blocker, task: OpenTask) -> Blocker:
    place = f"place {task.queue_position} in the queue"
    if task.is_built_in:
        return replace(known, text=f"{_named(task)} waits for a replica to do it, {place}")
    if task.workers:
        serve = f"{task.workers} workers serve" if task.workers > 1 else "one worker serves"
        return replace(
            known,
            text=f"{_named(task)} is at {place}; {serve} it and had no room so far",
            remedy="start more workers, or give them more concurrency",
        )
    last = task.last_worker_at
    since = " has been connected" if last is None else f" is connected since {last:%F %T} UTC"
    return replace(
        known,
        text=f"no worker for {_named(task)}{since}",
        remedy=_OFFER[task.kind].format(action=task.action),
        needs_action=True,
    )


def _limited(known: Blocker, task: OpenTask, now: datetime) -> Blocker | None:
    """None: no limit keeps the task from a worker."""
    limit = task.limit
    reached = limit.reached(now) if limit is not None and task.workers else []
    if limit is None or not reached:
        return None
    name = quote(task.action)
    if limit.concurrency == 0:
        text = f"{_named(task)} is stopped by a limit of 0"
        remedy = f"let it go on: runkon limits clear {name}"
        return replace(known, kind=BlockerKind.LIMITED, text=text, remedy=remedy, needs_action=True)
    place = f"this one is at place {task.queue_position}"
    earliest = task.earliest_at(now)
    if earliest is not None:
        place += f" and goes at {earliest:%F %T} UTC at the earliest"
    options = {"--concurrency": limit.concurrency, "--rate": limit.per_s}
    given = " ".join(f"{key} {value:g}" for key, value in options.items() if value is not None)
    return replace(
        known,
        kind=BlockerKind.LIMITED,
        text=f"{_named(task)} is at its limit: {' and '.join(reached)}; {place}",
        remedy=f"set a higher limit than: runkon limits set {name} {given}",
    )


_OFFER: Final = {
    "action": "start a worker that serves `{action}`",
    "script": "start a worker with --allow-scripts",
    "items": "start a worker that finds items of `{action}`",
    "gate": "start a worker that looks after gates of type `{action}`",
}


def _named(task: OpenTask) -> str:
    nouns = {"script": "script ", "items": "provider ", "gate": "gate type "}
    return f"{nouns.get(task.kind, '')}`{task.action}`"


def _of_children(run: Standing) -> Iterator[Blocker]:
    for child in run.children:
        yield Blocker(
            kind=BlockerKind.CHILD_RUN,
            text=f"child run {child.run_id} of workflow `{child.workflow_name}` has not ended",
            step_id=child.step_id,
            since=child.since,
            subject=child.run_id,
        )


def _of_timers(run: Standing) -> Iterator[Blocker]:
    for timer in run.timers:
        about = _TIMERS.get(timer.kind)
        if about is None:
            continue  # deadlines of gates and steps are told with what they are about
        kind, text = about
        yield Blocker(kind=kind, text=text, step_id=timer.step_id or "", until=timer.due_at)


_TIMERS: Final = {
    "start": (BlockerKind.START_DELAY, "the run begins after the delay it was started with"),
    "retry": (BlockerKind.RETRY_DELAY, "an attempt failed, and the next one begins after a pause"),
    "grace": (
        BlockerKind.GRACE,
        "the run is being cancelled; what is in flight may end by itself until the grace is over",
    ),
    "poll": (BlockerKind.TIMER, "the next look at the gate comes after a pause"),
}
