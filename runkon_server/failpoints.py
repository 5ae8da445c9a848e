"""Named points at which a test makes this process end, wait or fail. A tool for tests only.

Every commit and every dispatch of the server passes such a point. Nothing happens there unless the
process was started with RUNKON_FAILPOINTS, or a test in this process has called `arm`; no request
can do so. A program that survives each of these points survives a crash anywhere between them.

Syntax, one or more separated by `;`:

    name=action[*count][/every][%percent]   and   seed=number   and   from=serving

* `exit`: the process ends at once, like after kill -9, with `EXIT_CODE`;
* `sleep(ms)`: whoever passes waits; at a point in a callback the event loop stalls;
* `block`: the same until `disarm`;
* `raise`: `FailpointError`, an error that nobody expects; `raise(40001)`: the database's error of
  that SQLSTATE;
* `ambiguous`: the error of a lost connection. What lies before the point was done, and whoever
  waits for the answer never hears it;
* `*2`: only the first two times; `/10`: every tenth time; `%5`: five times in a hundred, by chance
  that `seed` fixes;
* `from=serving`: what passes before the server serves neither counts nor is struck.

Source: gofail, FreeBSD's fail(9), and Temporal's `ExecuteAndTimeout`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import psycopg
import structlog

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "EXIT_CODE",
    "POINTS",
    "FailpointError",
    "FailpointSyntaxError",
    "arm",
    "arm_from_environment",
    "disarm",
    "failpoint",
    "failpoint_async",
    "fired",
    "is_armed",
    "serving",
]

log = structlog.get_logger(__name__)

ENVIRONMENT: Final = "RUNKON_FAILPOINTS"
EXIT_CODE: Final = 86
POLL_S: Final = 0.01

POINTS: Final[Mapping[str, str]] = {
    "batch.begin": "a batch is chosen, its transaction not begun",
    "batch.locked": "the transaction is open and holds its locks, nothing is decided",
    "batch.decided": "every entry is decided, nothing is written",
    "write.runs": "definitions, new runs and their details are written",
    "write.steps": "steps are written",
    "write.items": "items of a `foreach` are written",
    "write.events": "events are written",
    "write.facts": "facts are written, applied ones removed",
    "write.tasks": "tasks are written",
    "write.timers": "timers are written and removed",
    "write.gates": "gates and votes are written",
    "write.counters": "the runs' own rows are written",
    "write.answers": "run keys and answers to requests are written",
    "batch.written": "every row is written, COMMIT is not sent",
    "batch.committed": "COMMIT was executed, its entries do not know",
    "batch.telling": "a batch is known to be committed, nobody is told",
    "batch.resolving": "what became of a COMMIT without an answer is about to be asked",
    "pipeline.answered": "one round trip of the committer, or a quick read, was executed",
    "statement.answered": "one statement outside the committer was executed",
    "transaction.begun": "a short transaction is about to do its work",
    "transaction.done": "its work is done, COMMIT is not sent",
    "transaction.committed": "its COMMIT was executed",
    "run.starting": "StartRun was decided, nothing is queued",
    "run.started": "a new run is committed, neither it nor its caller goes on",
    "run.parked": "a run was given up because it only waits; it is still in memory",
    "runs.acquire": "this replica looks for runs without an owner",
    "runs.acquired": "it has taken some, they are not loaded",
    "runs.loaded": "their rows are read, there are no actors",
    "run.revived": "a run's actor stands and has not moved",
    "facts.read": "facts that others stored are read, not applied",
    "fact.recorded": "a fact is stored, its run not woken",
    "timer.fired": "a timer of a run in memory went off",
    "decision.committed": "a decision is durable, the actor does not know",
    "decision.settled": "the actor has taken it over, no order is carried out",
    "decision.carried_out": "orders are carried out, callers and parents are not told",
    "leases.renew": "the leases are about to be renewed (in the renewal's own thread)",
    "leases.renewed": "they are renewed",
    "leases.hand_over": "a replica that stops is about to give its runs up",
    "leases.handed_over": "it has, others are not told",
    "task.pushing": "a task is about to go to a connected worker",
    "task.pushed": "it is in the worker's outbox",
    "tasks.claimed": "queued tasks are leased to a worker, it has none of them",
    "tasks.given_back": "leases that no worker saw are queued again",
    "tasks.requeued": "tasks of silent workers are queued again",
    "tasks.lost": "tasks that nobody will report are found, not settled",
    "beats.extended": "heartbeats are written, their workers not told",
    "report.received": "a worker's report has come, nothing is recorded",
    "report.recorded": "a report for a run of somebody else is stored, its worker not told",
    "gate.voted": "a vote is committed, its caller not told",
    "gate.timed_out": "a gate's deadline is decided, its run not told",
    "look.recorded": "what a look at a gate found is committed",
    "cancel.recorded": "that a run shall stop is committed, its caller not told",
    "children.prepared": "what child runs need is found, their parent's decision not queued",
    "children.committed": "child runs are committed, none has begun",
    "child.begun": "a child run was taken up",
    "notice.read": "how a child stands is read, its parent not told",
    "notice.recorded": "a parent's fact about its child is stored",
    "items.found": "the server has found the items of a `foreach`, not reported them",
    "resume.prepared": "how a run goes on is decided, nothing is queued",
    "resume.committed": "a resumed run is committed, it has not begun",
    "listener.locked": "the session that shows a replica to be alive holds its lock",
    "listener.heard": "a hint of another replica has come",
    "presence.published": "which workers are connected is written",
    "stream.opened": "an event stream has read where it begins",
    "stream.read": "a stream has read events, not written them",
    "stream.written": "a frame of events was taken, the cursor not moved",
    "drain.begun": "a replica has begun to stop",
}
"""Every point by name, with where it stands."""

_ACTION: Final = re.compile(
    r"(?P<kind>exit|sleep|block|raise|ambiguous)(\((?P<argument>\w+)\))?"
    r"(\*(?P<count>\d+))?(/(?P<every>\d+))?(%(?P<percent>\d+(\.\d+)?))?"
)


class FailpointError(RuntimeError):
    """What `raise` raises."""


class FailpointSyntaxError(ValueError):
    """RUNKON_FAILPOINTS names a point that does not exist, or an action that makes no sense."""


@dataclass(slots=True)
class _Armed:
    """What one point does."""

    kind: str
    argument: str | None
    count: int | None
    """How many times it may still happen; None: always."""
    every: int
    share: float
    chance: random.Random
    passed: int = 0
    fired: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def is_due(self) -> bool:
        """Count this passage; whether something happens in it."""
        self.passed += 1
        if self.count == 0 or self.passed % self.every or self.chance.random() >= self.share:
            return False
        if self.count is not None:
            self.count -= 1
        self.fired += 1
        return True


_armed: dict[str, _Armed] = {}
_holding = threading.Event()
"""Set while points wait for the server to serve: `from=serving`."""
_lock: Final = threading.Lock()


def failpoint(name: str) -> None:
    """A point in a callback or a thread: whatever it does, it does to the whole thread.

    Free unless something is armed: one look at a global (35 ns, call included).
    """
    if _armed:
        _pass(name)


async def failpoint_async(name: str) -> None:
    """A point in a coroutine: only that one waits. Free unless armed (100 ns)."""
    if _armed:
        await _pass_async(name)


def is_armed(names: Collection[str]) -> bool:
    """Whether one of these points may do something; for work that only makes room for points."""
    return bool(_armed) and not _armed.keys().isdisjoint(names)


def arm(text: str) -> None:
    """Arm points, besides those that are armed already.

    Raises:
        FailpointSyntaxError: a name is unknown or an action is malformed; nothing is armed.
    """
    seed, wanted, is_holding = 0, {}, False
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, action = part.partition("=")
        if name == "seed" and action.isdigit():
            seed = int(action)
        elif (name, action) == ("from", "serving"):
            is_holding = True
        elif name not in POINTS:
            raise FailpointSyntaxError(f"there is no failpoint {name!r}")
        else:
            wanted[name] = action
    _armed.update({name: _parse(name, action, seed) for name, action in wanted.items()})
    if is_holding:
        _holding.set()


def arm_from_environment() -> None:
    """Arm what RUNKON_FAILPOINTS says; called once, when the process starts.

    Raises:
        FailpointSyntaxError: as `arm`.
    """
    arm(os.environ.get(ENVIRONMENT, ""))


def serving() -> None:
    """The server serves: points armed with `from=serving` begin to count."""
    _holding.clear()


def disarm() -> None:
    """Make every point do nothing again; who is blocked at one goes on."""
    _holding.clear()
    for each in _armed.values():
        each.released.set()
    _armed.clear()


def fired() -> dict[str, int]:
    """How many times each armed point did something."""
    return {name: each.fired for name, each in _armed.items()}


def _parse(name: str, action: str, seed: int) -> _Armed:
    found = _ACTION.fullmatch(action)
    if found is None:
        raise FailpointSyntaxError(f"failpoint {name!r} cannot do {action!r}")
    kind, argument = found["kind"], found["argument"]
    is_sensible = (
        (argument or "").isdigit()
        if kind == "sleep"
        else argument is None or (kind == "raise" and _has_error(argument))
    )
    every = int(found["every"] or 1)
    if not is_sensible or not every:
        raise FailpointSyntaxError(f"failpoint {name!r} cannot do {action!r}")
    return _Armed(
        kind=kind,
        argument=argument,
        count=int(found["count"]) if found["count"] else None,
        every=every,
        share=float(found["percent"] or 100) / 100,
        chance=random.Random(f"{seed}/{name}"),
    )


def _has_error(sqlstate: str) -> bool:
    try:
        psycopg.errors.lookup(sqlstate)
    except KeyError:
        return False
    return True


def _due(name: str) -> _Armed | None:
    if name not in POINTS:
        raise AssertionError(f"failpoint {name!r} is not in the table")
    with _lock:
        point = _armed.get(name)
        if point is None or _holding.is_set() or not point.is_due():
            return None
    log.warning("failpoint.fired", point=name, action=point.kind)
    return point


def _pass(name: str) -> None:
    point = _due(name)
    if point is None:
        return
    if point.kind == "sleep":
        time.sleep(int(point.argument or 0) / 1000)
    elif point.kind == "block":
        point.released.wait()
    else:
        _fail(name, point)


async def _pass_async(name: str) -> None:
    point = _due(name)
    if point is None:
        return
    if point.kind == "sleep":
        await asyncio.sleep(int(point.argument or 0) / 1000)
    elif point.kind == "block":
        while not point.released.is_set():  # noqa: ASYNC110 - may be released by another thread
            await asyncio.sleep(POLL_S)
    else:
        _fail(name, point)


def _fail(name: str, point: _Armed) -> NoReturn:
    if point.kind == "exit":
        sys.stderr.flush()
        os._exit(EXIT_CODE)
    if point.kind == "ambiguous":
        raise psycopg.OperationalError(f"failpoint {name}: the answer was lost")
    if point.argument is not None:
        raise psycopg.errors.lookup(point.argument)(f"failpoint {name}")
    raise FailpointError(name)
