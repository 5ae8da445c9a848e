"""The world around one run: a store that keeps what decisions say, and whatever may happen next."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

from runkon_server.core import ids
from runkon_server.core.bubbling import load_results
from runkon_server.core.decision import (
    AbandonTask,
    CancelChild,
    CancelTask,
    ClearTimer,
    CloseGate,
    Decision,
    Dispatch,
    Event,
    OpenGate,
    ResumeChild,
    RunEnded,
    SetTimer,
    StartChild,
)
from runkon_server.core.engine import (
    ResumeMode,
    advance,
    blocked_on,
    compile_plan,
    open_tasks,
    restore,
    resume,
)
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    GateDecided,
    GateDecision,
    GatePolled,
    ItemsCollected,
    LimitReached,
    Reported,
    Started,
    TimerDue,
)
from runkon_server.core.folding import RunFold, visible_item, visible_step
from runkon_server.core.plan import Block, ForEachNode, Loop
from runkon_server.core.records import ItemRecord, RunRecord, RunRows, StepRecord
from runkon_server.core.rows import ENDED, cut
from runkon_server.core.tasks import FAIL_FAST
from support.answers import answers_to, decisions_of, news_of
from support.starts import is_doomed, objections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.core.decision import Order
    from runkon_server.core.facts import Fact
    from runkon_server.core.model import RunState
    from runkon_server.core.outputs_schema import Schema
    from runkon_server.core.plan import PlanNode
    from runkon_server.dsl.ast import Definition

RUN = "01RUN"


class World:
    """One run, live, with everything that a store would have of it."""

    def __init__(
        self,
        definition: Definition,
        inputs: dict[str, str],
        schemas: dict[str, Schema] | None = None,
        **columns: Any,
    ) -> None:
        self.definition = definition
        self.plan = compile_plan(definition, schemas)
        self.nodes = {
            node.path: node for node in (*_nodes_in(self.plan.body), *_nodes_in(self.plan.always))
        }
        self.run: dict[str, Any] = {
            "run_id": RUN,
            "workflow_name": definition.name,
            "status": "pending",
            "inputs": inputs,
            **columns,
        }
        self.steps: dict[str, dict[str, Any]] = {}
        self.timers: dict[str, SetTimer] = {}
        self.tasks: dict[str, Dispatch] = {}
        self.dispatched: list[Dispatch] = []
        self.gates: dict[str, OpenGate] = {}
        self.gate_states: dict[str, str] = {}
        """Of all gates, decided ones too."""
        self.items: dict[str, dict[str, Any]] = {}
        self.children: dict[str, StartChild | ResumeChild] = {}
        """Child runs whose end is awaited."""
        self.started_children: list[StartChild | ResumeChild] = []
        self.child_ends: dict[tuple[str, int], str] = {}
        """How child runs ended, by id and epoch, as far as that was awaited."""
        self.child_gates: dict[str, dict[str, Any]] = {}
        """Gates that child runs wait for, as they have said last."""
        self.asked: dict[str, str] = {}
        """Reasons of the cancels that workers were told of, by task, ended ones too."""
        self.events: list[Event] = []
        self.orders: Counter[tuple[str, str]] = Counter()
        self.folded = RunFold()
        self._told = 0
        self.applied: list[Fact] = []
        self.was_forced_in_body = False
        self.resumed: ResumeMode | None = None
        """How the present epoch was opened."""
        self.kept_before: set[str] = set()
        """Places of the steps that stood before that, and of which none failed the run."""
        self.wrong_starts: list[str] = []
        """What should not have been started, and why not."""
        self.state: RunState = restore(self.plan, self.rows())
        self.last = Decision(self.state)

    def rows(self) -> RunRows:
        """What the store would give for a restore; steps in no useful order."""
        known = {name: value for name, value in self.run.items() if name in _RUN_COLUMNS}
        steps = tuple(_record(row) for row in reversed(self.steps.values()))
        items = tuple(ItemRecord(**row) for row in reversed(self.items.values()))
        return RunRows(run=RunRecord(**known), steps=steps, items=items)

    def record(self, fact: Fact) -> None:
        """What happens to rows when a fact is recorded, before it is applied."""
        match fact:
            case CancelAsked() if self.run["status"] not in _TERMINAL:
                self.run["status"] = "cancelling"
                asked = {"reason": fact.reason, "force": fact.force}
                self.events.append(Event("run_cancel_requested", asked))
            case TimerDue():
                self.timers.pop(fact.timer_id, None)
            case GateDecided():
                if self.gates.pop(fact.gate_id, None) is not None:
                    self.gate_states[fact.gate_id] = fact.decision.value
                    gate = {"id": fact.gate_id, "step_id": fact.gate_id}
                    gate["state"] = fact.decision.value
                    self.events.append(Event("gate_resolved", {"gate": gate}))
                if fact.decision is GateDecision.TIMED_OUT:
                    self.timers.pop(ids.gate_timer(fact.gate_id), None)
                if fact.poll_id is not None:
                    self.tasks.pop(fact.poll_id, None)
            case Reported() | GatePolled() | ItemsCollected():
                self.tasks.pop(fact.task_id, None)
            case ChildEnded():
                child = self.children.get(fact.child_run_id)
                if child is not None and epoch_of(child) == fact.child_epoch:
                    del self.children[fact.child_run_id]
                    self.child_ends[fact.child_run_id, fact.child_epoch] = fact.status
                    self.child_gates.pop(fact.child_run_id, None)
            case ChildBlocked():
                self.child_gates.pop(fact.child_run_id, None)
                if fact.blocked_on is not None:
                    self.child_gates[fact.child_run_id] = fact.blocked_on
            case _:
                pass

    def happen(self, fact: Fact) -> Decision:
        """Record a fact and apply it."""
        self.record(fact)
        return self.apply(fact)

    def apply(self, fact: Fact) -> Decision:
        """Decide, and keep what the decision says."""
        before = self.state
        decision = advance(before, fact)
        is_forced = isinstance(fact, LimitReached) or (isinstance(fact, CancelAsked) and fact.force)
        if is_forced and before.phase == "body":
            self.was_forced_in_body = True
        self.applied.append(fact)
        self._store(decision)
        for order in decision.orders:
            self._carry_out(order, before, fact)
        self.state, self.last = decision.state, decision
        return decision

    def _store(self, decision: Decision) -> None:
        self.run.update(decision.run)
        for write in decision.steps:
            assert write.insert == (write.step_id not in self.steps)
            row = self.steps.setdefault(write.step_id, {})
            assert None not in write.columns.values()
            row.update(write.columns)
        for item in decision.items:
            assert item.insert == (item.id not in self.items)
            row = self.items.setdefault(item.id, {"id": item.id, "step_run_id": item.step_run_id})
            assert None not in item.columns.values()
            row.update(item.columns)
        self.events.extend(decision.events)

    def _carry_out(self, order: Order, before: RunState, fact: Fact | None) -> None:
        match order:
            case Dispatch(task_id=identity):
                self.tasks[identity] = order
                self.dispatched.append(order)
                self.wrong_starts += objections(self, order, before, fact)
            case CancelTask(task_id=identity):
                assert identity in self.tasks
                assert order.reason != FAIL_FAST or is_doomed(self, self.tasks[identity].step_id)
                self.asked[identity] = order.reason
            case AbandonTask(task_id=identity):
                del self.tasks[identity]
            case SetTimer(timer_id=identity):
                self.timers[identity] = order
            case ClearTimer(timer_id=identity):
                del self.timers[identity]
            case OpenGate(gate_id=identity):
                self.gates[identity] = order
                self.gate_states[identity] = "pending"
                self.wrong_starts += objections(self, order, before, fact)
            case CloseGate(gate_id=identity):
                del self.gates[identity]
                self.gate_states[identity] = "cancelled"
            case StartChild(child_run_id=identity) | ResumeChild(child_run_id=identity):
                self.children[identity] = order
                self.started_children.append(order)
                self.wrong_starts += objections(self, order, before, fact)
                identity += f" in epoch {epoch_of(order)}"
            case CancelChild(child_run_id=identity, child_epoch=epoch, force=force):
                assert epoch_of(self.children[identity]) == epoch
                self.asked[identity] = order.reason
                if force:
                    del self.children[identity]
                    self.child_gates.pop(identity, None)
                identity += f" in epoch {epoch}, {force=}"
            case RunEnded(status=identity):
                assert identity == self.run["status"]
                identity += f" in epoch {self.run.get('epoch', 1)}"
            case _:
                assert_never(order)
        self.orders[type(order).__name__, identity] += 1

    def resume(self, mode: ResumeMode, step_id: str | None = None) -> Decision:
        """Take the run up again; a refusal changes nothing."""
        before = self.state
        decision = resume(self.plan, self.rows(), mode, step_id)
        fatal = {step["at"] for step in self.standing() if step.get("fatal")}
        self.kept_before = {step["at"] for step in self.standing()} - fatal
        self.resumed = mode
        self.was_forced_in_body = False
        self._store(decision)
        for order in decision.orders:
            self._carry_out(order, before, None)
        self.state, self.last = decision.state, decision
        return decision

    def watch(self) -> RunFold:
        """What somebody believes who has seen all events."""
        for event in self.events[self._told :]:
            self.folded.follow(event.kind, event.payload)
        self._told = len(self.events)
        return self.folded

    def standing(self) -> list[dict[str, Any]]:
        """Rows of steps that no resume has superseded."""
        return [step for step in self.steps.values() if step.get("superseded_epoch") is None]

    def crash(self) -> None:
        """Lose the state; go on from the rows."""
        self.state = restore(self.plan, self.rows())

    def possible(self) -> list[Fact]:
        """Every fact that could come next."""
        if self.state.is_terminal:
            return []
        cancels: list[Fact] = [
            CancelAsked(reason="enough"),
            CancelAsked(reason="now", force=True),
        ]
        if self.state.status == "pending":
            return [Started(), *cancels]
        facts: list[Fact] = []
        for task in self.tasks.values():
            facts += answers_to(task)
        for child in self.children.values():
            facts += news_of(child.child_run_id, epoch_of(child))
        for gate in self.gates.values():
            facts += decisions_of(gate, self.tasks)
        facts += [
            TimerDue(timer_id=timer.timer_id)
            for timer in self.timers.values()
            if timer.kind != "gate"
        ]
        return facts + cancels


def epoch_of(child: StartChild | ResumeChild) -> int:
    """The epoch in which a child run runs."""
    return child.child_epoch if isinstance(child, ResumeChild) else 1


def _record(row: dict[str, Any]) -> StepRecord:
    results = row.get("child_results")
    return StepRecord(
        **{**row, "child_results": None if results is None else load_results(results)}
    )


def _nodes_in(node: PlanNode) -> Iterator[PlanNode]:
    yield node
    for child in node.children if isinstance(node, Block | Loop) else ():
        yield from _nodes_in(child)


_RUN_COLUMNS = frozenset(RunRecord.__slots__)
_TERMINAL = frozenset({"completed", "failed", "cancelled"})


def check_laws(world: World) -> None:
    """Everything that holds after every fact, however a run came to where it is."""
    state, rows = world.state, world.rows()
    assert restore(world.plan, rows) == state
    _check_events(world)
    assert world.run["status"] == state.status
    assert set(open_tasks(state)) == set(world.tasks)
    assert {
        (entry["child_run_id"], entry["child_epoch"])
        for entry in blocked_on(state)
        if entry["type"] == "child_run"
    } == {(child_id, epoch_of(child)) for child_id, child in world.children.items()}
    assert max(world.orders.values(), default=1) == 1
    assert not world.wrong_starts
    _check_items(world)
    _check_gates_of_children(world)
    _check_timers(world)
    attempts = Counter((step["at"], step["retry_count"]) for step in world.standing())
    assert max(attempts.values(), default=1) == 1
    _check_epoch(world)
    if state.is_terminal:
        _check_end(world)
    else:
        assert blocked_on(state)
        assert (state.status == "waiting") == (world.run.get("blocked_on") is not None)
        if state.status != "cancelling":
            at_gates = bool(world.children) and world.child_gates.keys() == world.children.keys()
            assert (state.status == "waiting") == (bool(world.gates) or at_gates)


def _check_events(world: World) -> None:
    """Who only watches the events knows the rows; items are shown once something happens to them.

    What a resume carries over is told by the counters alone.
    """
    told = world.watch()
    run = world.run
    assert told.status == run["status"]
    assert (told.epoch, told.phase) == (run.get("epoch", 1), world.state.phase)
    assert told.blocked_on == run.get("blocked_on")
    assert told.error == (run.get("error") and cut(run["error"]))
    assert told.result_summary == run.get("result_summary")
    assert told.outcome == run.get("body_outcome")
    assert told.steps == {step_id: visible_step(row) for step_id, row in world.steps.items()}
    for item_id, row in world.items.items():
        known = told.items.get(item_id)
        if known is None:
            assert row["status"] in ("pending", "completed")
        else:
            assert known.items() <= visible_item(row).items()


def _check_timers(world: World) -> None:
    """There are the timers that something waits for, and no others."""
    state = world.state
    wanted = {entry["timer_id"] for entry in blocked_on(state) if entry["type"] == "retry"}
    wanted |= {ids.gate_timer(gate) for gate in world.gates}
    if state.cancel is not None:
        wanted.add(ids.grace_timer(state.setup.run_id, state.phase, state.setup.epoch))
    for gate in world.gates:
        looks = world.steps[gate].get("blocked_on") or {}
        if "note" in looks:
            wanted.add(ids.poll_timer(ids.task_id(gate, looks["polls"] - 1)))
    for task, order in world.tasks.items():
        if order.timeout_s is not None:
            of = task if order.kind == "script" else order.step_id
            wanted.add(ids.deadline_timer(of))
    assert set(world.timers) == wanted
    assert not any(
        is_doomed(world, timer.step_id) for timer in world.timers.values() if timer.step_id
    )


def _check_gates_of_children(world: World) -> None:
    """Rows that wait for a child show the gate that it has come to; the others show none."""
    steps = [step for step in world.steps.values() if step["role"] == "workflow"]
    for row in (*steps, *world.items.values()):
        is_running = row["status"] == "running"
        gate = world.child_gates.get(row["child_run_id"]) if is_running else None
        assert (row.get("blocked_on") or None) == gate


def _check_items(world: World) -> None:
    """Counters are rows; no more children run than may; who is awaited is who runs."""
    running = Counter[str]()
    for step in world.steps.values():
        if step.get("fan_out_total") is None:
            continue
        items = [item for item in world.items.values() if item["step_run_id"] == step["id"]]
        states = Counter(item["status"] for item in items)
        assert step["fan_out_total"] == len(items)
        for name in ("completed", "failed", "skipped"):
            assert step[f"fan_out_{name}"] == states[name]
        running.update(item["child_run_id"] for item in items if item["status"] == "running")
        node = world.nodes[step["path"]]
        assert isinstance(node, ForEachNode)
        assert states["running"] <= max(1, node.each.max_parallel)
    awaited = {child for child, order in world.children.items() if order.item_id is not None}
    assert awaited == set(running)
    assert max(running.values(), default=1) == 1


def _check_epoch(world: World) -> None:
    """What an epoch after the first one keeps (laws 9 and 11 of the engine's study)."""
    epoch = world.run.get("epoch", 1)
    if world.resumed is ResumeMode.NORMAL:
        again = {step["at"] for step in world.steps.values() if step["epoch"] == epoch}
        in_body = {  # but on_fail agents, which belong to steps that failed
            at for at in world.kept_before if at.startswith(ids.BODY) and not at.endswith(".f")
        }
        assert not again & in_body
    if world.run["status"] == "completed" and world.standing():
        rows = world.rows()
        steps = tuple(
            replace(step, epoch=epoch) for step in rows.steps if step.superseded_epoch is None
        )
        fresh = RunRows(run=replace(rows.run, status="running"), steps=steps)
        assert restore(world.plan, fresh).phase == "done"  # it raises for a row that it misses


def _check_end(world: World) -> None:
    assert blocked_on(world.state) == ()
    assert not world.tasks
    assert not world.timers
    assert not world.gates
    assert not world.children
    assert all(step["status"] in ENDED for step in world.steps.values())
    kinds = Counter(event.kind for event in _of_epoch(world.events))
    has_always = bool(world.plan.always.children)
    assert kinds["always_started"] == (has_always and not world.was_forced_in_body)
    assert kinds["run_started"] + kinds["run_resumed"] == kinds["run_finished"] == 1
    assert ("run_resumed" in kinds) == (world.run.get("epoch", 1) > 1)
    assert world.events[0].kind in ("run_started", "run_cancel_requested")
    assert [event.kind for event in world.events[-2:]] == ["metrics_updated", "run_finished"]
    assert (world.run["error"] is None) == (world.run["status"] == "completed")
    assert world.run["phase"] == "done"
    assert world.run.get("blocked_on") is None


def _of_epoch(events: list[Event]) -> list[Event]:
    """The events since the last resume."""
    begin = 0
    for number, event in enumerate(events):
        if event.kind == "run_resumed":
            begin = number
    return events[begin:]
