"""The laws of the engine, over random programs and random histories.

Programs and facts come from a seeded generator, see `support.players`. What must occur now and then
is counted, and a test in which it never did fails. The thorough profile of hypothesis plays more
histories. What looks after the laws are the mutants of `tests/mutants/core.toml`.

The thirteen laws, and what checks them:

 1. Bisimulation: a run that is restored equals the one that was not lost, and both decide alike,
    whatever comes next: `check_laws`, `_check_futures`; up to the end: `test_bisimulation.py`.
 2. A fact counts once, and only if it answers what is in flight: `_check_old_facts`,
    `_check_foreign_facts`.
 3. A run that is not over waits for something; when it is over nothing is open; no timers but those
    that something waits for: `check_laws`, `_check_end`, `_check_timers`.
 4. Events alone tell the status, and the rows of steps and items: `_check_events`.
 5. Nothing is ordered twice, whenever a server is lost: `World.orders`.
 6. In a cancelled body nothing starts; in a run that is forced to end nothing at all:
    `support.starts`.
 7. The always section begins once per epoch, unless the run is forced to end: `_check_end`.
 8. Counters are rows, and no more items run than may: `_check_items`.
 9. A normal resume repeats nothing in the body but what failed the run: `_check_epoch`.
10. A child is resumed only if its last end was a failure: `support.starts`.
11. When a run completes, a walk from its start reaches every row that stands: `_check_epoch`;
    before that, no row can be missed: `_check_every_row_is_needed`.
12. A doomed block and a halted foreach start nothing: `support.starts`, `_check_timers`.
13. A place has at most one row that stands per attempt: `check_laws`.

`World`, and the functions that are not here, are in `support.histories`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import pytest

from runkon_server.core.decision import Decision, ResumeChild
from runkon_server.core.engine import ResumeRefusedError, advance, restore
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    GateDecided,
    GateDecision,
    GatePolled,
    LimitReached,
    Outcome,
    Reported,
    TimerDue,
)
from runkon_server.core.records import RunRows
from runkon_server.core.scratch import InconsistentRowsError
from support.histories import RUN, check_laws, epoch_of
from support.players import FACTS_MAX, Player

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.core.facts import Fact

HISTORIES_PER_EXAMPLE: Final = 10
SOMETIMES: Final = (
    "completed", "failed", "cancelled", "force", "grace over in body", "grace over in always",
    "retry due", "deadline due", "gate approved", "gate rejected", "gate timed_out",
    "cancel before start", "cancel in body", "cancel in always", "fail_fast", "run_waiting",
    "step_retrying", "step_skipped", "step_timed_out", "loop", "stuck", "idle loop",
    "on_fail agent", "paused branch", "script", "script again", "script that cannot start",
    "poll due", "poll again", "decided by a look", "gate without an answer", "quality gate passed",
    "quality gate failed",
    "crash between record and apply", "long history",
    "resume normal", "resume from_step", "resume restart", "third epoch", "taken over", "orphan",
    "block of two epochs", "refused: cancelled", "refused: completed", "refused: unknown_step",
    "child completed", "child failed", "child cancelled", "child blocked", "child again",
    "child resumed", "limit in body", "limit in always", "refused: superseded_step",
    "refused: nothing_to_repeat",
    "fan_out_items_collected", "fan_out_item_completed", "item skipped", "item carried over",
    "item's child resumed", "item's child started anew", "halted", "budget", "all items blocked",
)  # fmt: skip


class History:
    """One random history of one program."""

    def __init__(self, seed: int, seen: Counter[str]) -> None:
        self.player = Player(seed)
        self.chance = self.player.chance
        self.world = self.player.world
        self.seen = seen

    def play(self) -> None:
        """From pending to the end, with all laws after every fact."""
        world = self.world
        check_laws(world)
        for step in range(FACTS_MAX):
            if world.state.is_terminal and not self._resume():
                break
            if world.state.is_terminal:  # again, at once
                check_laws(world)
                continue
            if self.chance.random() < 0.3:
                self._check_futures()
            if self.chance.random() < 0.1:
                self._check_every_row_is_needed()
            self._happen(self.player.pick_fact(step))
            check_laws(world)
            self._check_old_facts()
            if self.chance.random() < 0.3:
                self._check_foreign_facts()
        self.seen["long history"] += len(world.applied) > 15
        self._note_end()

    def _resume(self) -> bool:
        """Perhaps take the ended run up again; whether that was done."""
        world = self.world
        how = self.player.pick_resume()
        if how is None:
            return False
        before = world.rows()
        try:
            world.resume(*how)
        except ResumeRefusedError as refused:
            self.seen[f"refused: {refused.refusal}"] += 1
            assert world.rows() == before
            return False
        self.seen[f"resume {how[0]}"] += 1
        self.seen["third epoch"] += world.run["epoch"] == 3
        self.seen["taken over"] += bool(world.state.memo)
        check_laws(world)
        return True

    def _happen(self, fact: Fact) -> None:
        world = self.world
        self._note(fact)
        world.record(fact)
        before = world.state
        if self.chance.random() < 0.3:
            world.crash()
            self.seen["crash between record and apply"] += 1
            assert world.state == before
        world.apply(fact)

    def _check_futures(self) -> None:
        """Live and restored, the run decides alike, whatever comes next; neither is changed."""
        world = self.world
        restored = restore(world.plan, world.rows())
        for fact in world.possible():
            assert advance(world.state, fact) == advance(restored, fact)
            assert world.state == restored
        assert restored == restore(world.plan, world.rows())

    def _check_old_facts(self) -> None:
        """But the wait of a child, which is recorded as it stands, and once."""
        state, applied = self.world.state, self.world.applied
        old = [applied[-1]]
        once = [fact for fact in applied if not isinstance(fact, ChildBlocked)]
        if once and self.chance.random() < 0.2:
            old.append(self.chance.choice(once))
        for fact in old:
            decision = advance(state, fact)
            assert decision.state is state
            assert decision == Decision(state)

    def _check_foreign_facts(self) -> None:
        """Facts about what is not in flight: nothing is asked that was not ordered."""
        world, state = self.world, self.world.state
        timers = [
            timer
            for identity in (*world.tasks, *world.steps, *world.gates)
            for timer in (
                f"{identity}:retry",
                f"{identity}:deadline",
                f"{identity}:poll",
                f"{identity}#7:retry",
            )
        ]
        timers += [
            f"{RUN}:grace:{phase}/e{epoch}" for phase in ("body", "always") for epoch in (1, 2)
        ]
        facts: list[Fact] = [
            TimerDue(timer_id=timer) for timer in timers if timer not in world.timers
        ]
        for identity in (*world.steps, *world.tasks, *world.gates, "", "x" * 99):
            facts.append(Reported(task_id=f"{identity}#9", outcome=Outcome.COMPLETED))
            facts.append(GateDecided(gate_id=f"{identity}/", decision=GateDecision.APPROVED))
            facts.append(GatePolled(task_id=f"{identity}#9"))
        for child in world.started_children:
            name, epoch = child.child_run_id, epoch_of(child)
            now = world.children.get(name)
            for wrong in {epoch, epoch + 1, 99} - {0 if now is None else epoch_of(now)}:
                about: dict[str, Any] = {"child_run_id": name, "child_epoch": wrong}
                facts.append(ChildEnded(**about, status="completed"))
                facts.append(ChildBlocked(**about, blocked_on={"type": "human_review"}))
        for fact in facts:
            assert advance(state, fact).state is state

    def _check_every_row_is_needed(self) -> None:
        """Without the rows of any one place, a run cannot be restored: no row is an orphan.

        In a resumed run that is so for the places that the present epoch has come to.
        """
        rows = self.world.rows()
        places = sorted({step.at for step in rows.steps if step.epoch == rows.run.epoch})
        if len(places) < 2 or rows.run.cancel_reason is not None:
            return  # a cancelled body may end before any step
        lost = self.chance.choice(places)
        rest = RunRows(run=rows.run, steps=tuple(step for step in rows.steps if step.at != lost))
        with pytest.raises(InconsistentRowsError):
            restore(self.world.plan, rest)

    def _note(self, fact: Fact) -> None:
        world = self.world
        match fact:
            case CancelAsked():
                phase = "start" if world.state.status == "pending" else world.state.phase
                self.seen["cancel before start" if phase == "start" else f"cancel in {phase}"] += 1
                self.seen["force"] += fact.force
            case LimitReached():
                self.seen[f"limit in {world.state.phase}"] += 1
            case ChildEnded():
                self.seen[f"child {fact.status}"] += 1
            case ChildBlocked(blocked_on=gate):
                self.seen["child blocked"] += gate is not None
            case GateDecided():
                self.seen[f"gate {fact.decision}"] += 1
                self.seen["decided by a look"] += fact.poll_id is not None
            case TimerDue():
                kind = world.timers[fact.timer_id].kind
                where = f"grace over in {world.state.phase}"
                self.seen[where if kind == "grace" else f"{kind} due"] += 1
                self.seen["paused branch"] += kind == "retry" and len(world.tasks) > 0
            case _:
                pass

    def _note_end(self) -> None:
        world = self.world
        self.seen.update(f"item {item['status']}" for item in world.items.values())
        self.seen["item carried over"] += any(
            event.kind == "fan_out_items_collected"
            and event.payload["step"].get("fan_out_completed", 0) > 0
            for event in world.events
        )
        self.seen["item's child resumed"] += any(
            isinstance(order, ResumeChild) and order.item_id for order in world.started_children
        )
        refused = {
            fact.child_run_id
            for fact in world.applied
            if isinstance(fact, ChildEnded) and fact.error_code == "RESUME_REFUSED"
        }
        self.seen["item's child started anew"] += any(
            isinstance(order, ResumeChild) and order.item_id and order.child_run_id in refused
            for order in world.started_children
        )
        of_items = {order.child_run_id for order in world.started_children if order.item_id}
        self.seen["all items blocked"] += any(
            event.kind == "run_waiting" and event.payload["blocked_on"].get("run_id") in of_items
            for event in world.events
        )
        self.seen["halted"] += any("on_child_fail" in why for why in world.asked.values())
        self.seen["budget"] += any(
            step.get("error_code") == "BUDGET_EXCEEDED" for step in world.steps.values()
        )
        repeated = {step["at"] for step in world.standing()}
        self.seen["orphan"] += any(
            step["at"] not in repeated
            for step in world.steps.values()
            if step["status"] != "failed"
        )
        epochs: dict[str, set[int]] = {}
        for step in world.standing():
            if step.get("parallel_group_id"):
                epochs.setdefault(step["at"].rpartition(".")[0], set()).add(step["epoch"])
        self.seen["block of two epochs"] += any(len(each) > 1 for each in epochs.values())
        self.seen.update(event.kind for event in world.events)
        self.seen.update(world.asked.values())
        self.seen[world.run["status"]] += 1
        error = world.run.get("error") or ""
        self.seen["loop"] += any(step["iteration"] > 0 for step in world.steps.values())
        self.seen["stuck"] += "is stuck" in error
        self.seen["idle loop"] += "did nothing" in error
        self.seen["poll again"] += any(
            (step.get("blocked_on") or {}).get("polls", 0) > 1 for step in world.steps.values()
        )
        for step in world.steps.values():
            if step.get("gate_type") == "quality_gate":
                has_failed = step["status"] == "failed"
                self.seen["quality gate failed" if has_failed else "quality gate passed"] += 1
            elif step.get("gate_type"):
                self.seen["gate without an answer"] += "no gate" in step.get("step_error", "")
        self.seen["child again"] += len(world.started_children) > 1
        self.seen["child resumed"] += any(epoch_of(each) > 1 for each in world.started_children)
        scripts = [step for step in world.steps.values() if step["role"] == "script"]
        self.seen["script"] += len(scripts) > 0
        self.seen["script again"] += any(step["retry_count"] for step in scripts)
        self.seen["script that cannot start"] += any(
            step.get("error_code") == "SCRIPT_INVALID" for step in scripts
        )
        self.seen["on_fail agent"] += any(
            step["at"].endswith(".f") for step in world.steps.values()
        )


def _rarely(seen: Counter[str], wanted: Sequence[str]) -> list[str]:
    return [name for name in wanted if seen[name] == 0]


def test_laws_hold_after_every_fact() -> None:
    """Restored = live, now and for every possible next fact; nothing done twice; nothing lost.

    The laws are `check_laws` and the checks of `History`.
    """
    seen: Counter[str] = Counter()

    profile = hypothesis.settings.default
    assert profile is not None

    for seed in range(HISTORIES_PER_EXAMPLE * profile.max_examples):
        try:
            History(seed, seen).play()
        except BaseException as error:
            error.add_note(f"history {seed}")
            raise

    assert _rarely(seen, SOMETIMES) == []
