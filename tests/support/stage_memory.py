"""A stage in memory: the pure core over rows in dictionaries, children and all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runkon_server.api.definitions import check_source
from runkon_server.core import gates
from runkon_server.core.bubbling import results_of
from runkon_server.core.decision import CancelChild, Dispatch, ResumeChild, ScriptWork, StartChild
from runkon_server.core.engine import ResumeMode, ResumeRefusedError
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    Dependency,
    GateDecided,
    GateDecision,
    Item,
    ItemsCollected,
    Outcome,
    Reported,
    Started,
    TimerDue,
)
from runkon_server.core.summary import summarize
from runkon_server.dsl.limits import CALL_DEPTH
from runkon_server.errors import InputsInvalidError, InvalidArgumentError
from runkon_server.runtime.inputs import complete_inputs
from runkon_server.runtime.resuming import as_domain_error
from runkon_server.runtime.schemas import read_schema
from support.histories import RUN, World, check_laws, epoch_of
from support.stage import PROVIDED, Given, ItemRow, Refused, Row, Stage
from support.workflows import wrap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from runkon_server.core.decision import OpenGate
    from runkon_server.core.facts import Fact
    from runkon_server.dsl.ast import Definition

_TERMINAL = frozenset({"completed", "failed", "cancelled"})


class MemoryStage(Stage):
    """Plays at once: nothing has to be waited for."""

    is_live = False

    def __init__(self) -> None:
        self.run_id = RUN
        self._definitions: dict[str, Definition] = {}
        self._worlds: dict[str, World] = {}
        self._parents: dict[str, tuple[str, StartChild | ResumeChild]] = {}
        self._gates: dict[str, tuple[OpenGate, list[gates.Vote]]] = {}
        self._starter = ""

    @property
    def world(self) -> World:
        """The run itself."""
        return self._worlds[RUN]

    async def has_run(self) -> bool:
        return bool(self._worlds)

    async def put(self, name: str, body: str) -> None:
        self._definitions[name] = replace(_checked(body), name=name)

    async def start(
        self,
        body: str,
        inputs: Mapping[str, str] | None = None,
        *,
        schemas: Mapping[str, str] | None = None,
        snippets: Mapping[str, str] | None = None,
        fail_fast: bool = True,
        dry_run: bool = False,
        starter: str = "starter",
        is_delayed: bool = False,
    ) -> None:
        definition = _checked(body, schemas, snippets)
        values = _inputs(definition, inputs or {})
        parsed = {name: read_schema(name, text) for name, text in (schemas or {}).items()}
        self._starter = starter
        self._worlds[RUN] = World(definition, values, parsed, fail_fast=fail_fast, dry_run=dry_run)
        if not is_delayed:
            self._happen(RUN, Started())

    def _happen(self, run_id: str, fact: Fact) -> None:
        """A fact is recorded, a replica takes the run over and applies it; the laws hold."""
        world = self._worlds[run_id]
        world.record(fact)
        world.crash()
        self._follow(run_id, was=world.run["status"], decision=world.apply(fact))

    def _follow(self, run_id: str, *, was: str, decision: Any) -> None:
        world = self._worlds[run_id]
        check_laws(world)
        for order in decision.orders:
            match order:
                case StartChild():
                    self._start_child(run_id, order)
                case ResumeChild():
                    self._resume_child(run_id, order)
                case CancelChild():
                    self._cancel_child(order)
                case _:
                    pass
        self._tell_parent(run_id, was)

    def _tell_parent(self, run_id: str, was: str) -> None:
        world = self._worlds[run_id]
        if run_id not in self._parents:
            return
        parent, order = self._parents[run_id]
        about: dict[str, Any] = {"child_run_id": run_id, "child_epoch": epoch_of(order)}
        status = world.run["status"]
        if status in _TERMINAL:
            results = results_of(world.rows().steps) if status == "completed" else None
            sums: dict[str, Any] = dict(world.run.get("metrics") or {})
            error: str | None = world.run.get("error")
            ended = ChildEnded(**about, status=status, error=error, results=results, metrics=sums)
            self._happen(parent, ended)
        elif (status == "waiting") != (was == "waiting"):
            gate = world.run.get("blocked_on")
            blocked = None if gate is None else {"run_id": run_id, **gate}
            self._happen(parent, ChildBlocked(**about, blocked_on=blocked))

    def _start_child(self, parent: str, order: StartChild) -> None:
        definition = self._definitions.get(order.workflow_name)
        about: dict[str, Any] = {"child_run_id": order.child_run_id, "child_epoch": 1}
        try:
            if definition is None:
                raise Refused("WORKFLOW_NOT_FOUND", f"no workflow `{order.workflow_name}`")
            if order.depth > CALL_DEPTH:
                raise Refused("DEPTH_EXCEEDED", f"more than {CALL_DEPTH} runs below one another")
            values = _inputs(definition, order.inputs, is_item=order.item_id is not None)
        except Refused as refused:
            ended = ChildEnded(
                **about,
                status="failed",
                error=str(refused),
                error_code=refused.reason,
                retryable=False,
            )
            self._happen(parent, ended)
            return
        above = self._worlds[parent].run
        self._worlds[order.child_run_id] = World(
            definition,
            values,
            run_id=order.child_run_id,
            dry_run=above.get("dry_run", False),
            fail_fast=above.get("fail_fast", True),
            depth=order.depth,
            root_run_id=order.root_run_id,
        )
        self._parents[order.child_run_id] = (parent, order)
        self._happen(order.child_run_id, Started())

    def _resume_child(self, parent: str, order: ResumeChild) -> None:
        world = self._worlds[order.child_run_id]
        self._parents[order.child_run_id] = (parent, order)
        was = world.run["status"]
        try:
            decision = world.resume(ResumeMode.NORMAL)
        except ResumeRefusedError as refused:
            ended = ChildEnded(
                child_run_id=order.child_run_id,
                child_epoch=order.child_epoch,
                status="failed",
                error=str(refused),
                error_code="RESUME_REFUSED",
            )
            self._happen(parent, ended)
            return
        self._follow(order.child_run_id, was=was, decision=decision)

    def _cancel_child(self, order: CancelChild) -> None:
        world = self._worlds.get(order.child_run_id)
        if world is not None and world.run["status"] not in _TERMINAL:
            self._happen(order.child_run_id, CancelAsked(reason=order.reason, force=order.force))

    def _task(self, name: str) -> tuple[str, Dispatch]:
        for run_id, world in self._worlds.items():
            for task in world.tasks.values():
                if _is_of(task, name):
                    return run_id, task
        raise AssertionError(f"no open task of step {name}; there are {self._open()}")

    def _open(self) -> list[str]:
        return sorted(
            task.step_name for world in self._worlds.values() for task in world.tasks.values()
        )

    async def complete(self, *names: str, **result: Any) -> None:
        for name in names:
            run_id, task = self._task(name)
            values = {**result, "markers": tuple(result.get("markers", ()))}
            done = Reported(task_id=task.task_id, outcome=Outcome.COMPLETED, **values)
            self._happen(run_id, done)

    async def fail(self, name: str, error: str = "broken", *, retryable: bool = True) -> None:
        run_id, task = self._task(name)
        failed = Reported(
            task_id=task.task_id, outcome=Outcome.FAILED, error=error, retryable=retryable
        )
        self._happen(run_id, failed)

    async def contradict(self, name: str) -> None:
        run_id, order = self._dispatched(name)
        world = self._worlds[run_id]
        assert order.task_id not in world.tasks, "not answered yet"
        before = world.state
        world.apply(Reported(task_id=order.task_id, outcome=Outcome.FAILED, error="after all"))
        assert world.state is before

    async def stopped(self, name: str) -> None:
        run_id, task = self._task(name)
        self._happen(run_id, Reported(task_id=task.task_id, outcome=Outcome.CANCELLED))

    async def collect(
        self,
        name: str,
        items: Sequence[str],
        *,
        types: Sequence[str] = (),
        edges: Sequence[tuple[str, str]] = (),
        context: Mapping[str, str] | None = None,
    ) -> None:
        run_id, task = self._task(name)
        found = tuple(
            Item(kind, each, f"ref {each}", dict(context or {}))
            for kind, each in zip(types or [PROVIDED] * len(items), items, strict=True)
        )
        dependencies = tuple(Dependency(blocker, dependent) for blocker, dependent in edges)
        self._happen(
            run_id, ItemsCollected(task_id=task.task_id, items=found, dependencies=dependencies)
        )

    async def approve(
        self,
        feedback: str = "",
        *,
        selections: Sequence[str] = (),
        who: str = "ann",
        gate: str = "",
    ) -> None:
        self._vote(
            gate, gates.Vote(principal=who, approve=True, feedback=feedback or None), selections
        )

    async def reject(self, feedback: str = "", *, who: str = "ann", gate: str = "") -> None:
        vote = gates.Vote(principal=who, approve=False, feedback=feedback or None)
        self._vote(gate, vote, ())

    def _vote(self, name: str, vote: gates.Vote, selections: Sequence[str]) -> None:
        """What a recorder does under the run's lock."""
        run_id, gate = self._gate(name)
        keys = {key for key, _ in gate.options or ()}
        if not keys.issuperset(selections):
            raise Refused("GATE_SELECTION_INVALID", ", ".join(selections))
        _, votes = self._gates.setdefault(gate.gate_id, (gate, []))
        if gate.exclude_starter and vote.principal == self._starter:
            raise Refused("GATE_STARTER_EXCLUDED")
        votes.append(vote)
        decision = gates.tally(
            approvers=gate.approvers,
            exclude_starter=gate.exclude_starter,
            starter=self._starter,
            votes=votes,
        )
        if decision is None:
            return
        said = [each.feedback for each in votes if each.feedback is not None]
        self._happen(
            run_id,
            GateDecided(
                gate_id=gate.gate_id,
                decision=decision,
                feedback=said[-1] if said else None,
                selections=tuple(selections),
                decided_by=vote.principal,
            ),
        )

    def _gate(self, name: str) -> tuple[str, OpenGate]:
        for run_id, world in self._worlds.items():
            for gate in world.gates.values():
                if name in ("", gate.name):
                    return run_id, gate
        raise Refused("GATE_ALREADY_RESOLVED", "no gate is open")

    async def pass_time(self, kind: str) -> None:
        for run_id, world in self._worlds.items():
            for timer in world.timers.values():
                if timer.kind != kind:
                    continue
                if kind == "gate":
                    gate = timer.timer_id.removesuffix(":gate")
                    self._happen(run_id, GateDecided(gate_id=gate, decision=GateDecision.TIMED_OUT))
                else:
                    self._happen(run_id, TimerDue(timer_id=timer.timer_id))
                return
        raise AssertionError(f"no timer of kind {kind} is set")

    async def cancel(
        self, reason: str = "enough", *, force: bool = False, run_id: str = ""
    ) -> None:
        if (run_id or RUN) not in self._worlds:
            raise Refused("RUN_NOT_FOUND", run_id)
        status = await self.status(run_id)
        if status == "cancelled" or (status == "cancelling" and not force):
            return  # which a recorder knows, so that there is no second fact
        if status in _TERMINAL:
            raise Refused("RUN_STATE", status)
        self._happen(run_id or RUN, CancelAsked(reason=reason, force=force))

    async def resume(self, mode: str = "normal", *, step: str = "") -> None:
        step_id = None
        if step:
            rows = await self.rows(step)
            step_id = rows[0].id if rows else step
        was = self.world.run["status"]
        try:
            decision = self.world.resume(ResumeMode(mode), step_id)
        except ResumeRefusedError as refused:
            told = as_domain_error(refused, RUN, was, ResumeMode(mode), step_id)
            raise Refused(told.reason, str(refused)) from refused
        self._follow(RUN, was=was, decision=decision)

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        assert await condition(), what

    async def until_open(self, *names: str) -> None:
        assert self._open() == sorted(names)

    async def until_status(self, status: str) -> None:
        assert self.world.run["status"] == status

    async def until_terminal(self) -> None:
        assert self.world.run["status"] in _TERMINAL, self._open()

    async def status(self, run_id: str = "") -> str:
        return str(self._worlds[run_id or RUN].run["status"])

    async def error(self) -> str:
        return self.world.run.get("error") or ""

    async def summary(self) -> str:
        rows = self.world.rows()
        return summarize(rows.run, rows.steps, self.world.run.get("error"))

    async def metrics(self) -> dict[str, float]:
        return dict(self.world.run.get("metrics") or {})

    async def blocked_on(self) -> str:
        blocked_on: dict[str, Any] = self.world.run.get("blocked_on") or {}
        return str(blocked_on.get("type", ""))

    async def rows(self, name: str = "", *, run_id: str = "") -> list[Row]:
        steps = self._worlds[run_id or RUN].steps.values()
        ordered = sorted(steps, key=lambda row: (row["at"], row["epoch"], row["retry_count"]))
        return [_row(row) for row in ordered if name in ("", row["step_name"])]

    async def items(self, name: str) -> list[ItemRow]:
        step = (await self.rows(f"foreach:{name}"))[-1].id
        found = [item for item in self.world.items.values() if item["step_run_id"] == step]
        return [
            ItemRow(
                item_id=item["item_id"],
                status=item["status"],
                child_run_id=item.get("child_run_id") or "",
                error=item.get("error") or "",
            )
            for item in sorted(found, key=lambda item: item["ordinal"])
        ]

    async def kinds(self, run_id: str = "") -> list[str]:
        return [event.kind for event in self._worlds[run_id or RUN].events]

    async def event(self, kind: str) -> dict[str, Any]:
        return next(each.payload for each in reversed(self.world.events) if each.kind == kind)

    def _dispatched(self, name: str, turn: int = -1) -> tuple[str, Dispatch]:
        """A task of a step, open or not, and its run."""
        return [
            (run_id, order)
            for run_id, world in self._worlds.items()
            for order in world.dispatched
            if _is_of(order, name)
        ][turn]

    def given(self, name: str, turn: int = -1) -> Given:
        run_id, order = self._dispatched(name, turn)
        script = order.work if isinstance(order.work, ScriptWork) else None
        return Given(
            name=name,
            run_id=run_id,
            action=order.action,
            inputs=dict(order.inputs),
            prior_contexts=None
            if order.prior_contexts is None
            else json.loads(order.prior_contexts),
            attempt=order.attempt,
            retries_remaining=order.retries_remaining,
            iterations=order.iterations,
            retry_error=order.retry_error or "",
            gate_feedback=order.gate_feedback,
            identity=order.identity or "",
            dry_run=order.dry_run,
            snippets=order.snippets,
            output_schema=order.output_schema or "",
            idempotency_key=order.idempotency_key,
            environment={} if script is None else dict(script.environment),
            text="" if script is None else script.text,
            timeout_s=None if script is None else script.timeout_s,
        )

    def times_given(self, name: str) -> int:
        worlds = self._worlds.values()
        return sum(_is_of(order, name) for world in worlds for order in world.dispatched)

    async def was_asked_to_stop(self, name: str) -> bool:
        return any(
            _is_of(order, name) and order.task_id in world.asked
            for world in self._worlds.values()
            for order in world.dispatched
        )

    async def child_inputs(self, run_id: str) -> dict[str, str]:
        return dict(self._worlds[run_id].run["inputs"])


def _checked(
    body: str,
    schemas: Mapping[str, str] | None = None,
    snippets: Mapping[str, str] | None = None,
) -> Definition:
    """What a server makes of the workflow `w` with these contents."""
    try:
        return check_source(wrap(body), "", schemas or {}, snippets or {}).accept().definition
    except InvalidArgumentError as error:
        raise Refused(error.reason, str(error)) from error


def _is_of(task: Dispatch, name: str) -> bool:
    step, _, item = name.partition("@")
    return task.step_name == step and item in ("", task.inputs.get("item.id"))


def _inputs(
    definition: Definition, given: Mapping[str, str], *, is_item: bool = False
) -> dict[str, str]:
    try:
        return complete_inputs(definition, given, is_item=is_item)
    except InputsInvalidError as error:
        raise Refused(error.reason, str(error)) from error


def _row(row: dict[str, Any]) -> Row:
    return Row(
        id=row["id"],
        name=row["step_name"],
        role=row["role"],
        status=row["status"],
        position=row["position"],
        iteration=row["iteration"],
        retry_count=row["retry_count"],
        epoch=row["epoch"],
        superseded_epoch=row.get("superseded_epoch") or 0,
        result_text=row.get("result_text") or "",
        context=row.get("context_out") or "",
        markers=tuple(row.get("markers_out") or ()),
        structured_output=row.get("structured_output") or "",
        error=row.get("step_error") or "",
        error_code=row.get("error_code") or "",
        child_run_id=row.get("child_run_id") or "",
        condition_met=row.get("condition_met"),
        fan_out=_fan_out(row),
    )


def _fan_out(row: dict[str, Any]) -> tuple[int, int, int, int] | None:
    if row.get("fan_out_total") is None:
        return None
    return (
        row["fan_out_total"],
        row["fan_out_completed"],
        row["fan_out_failed"],
        row["fan_out_skipped"],
    )
