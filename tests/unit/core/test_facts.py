"""Facts as they are stored."""

from __future__ import annotations

import pytest

from runkon_server.core.bubbling import ChildResults
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    Dependency,
    Fact,
    GateDecided,
    GateDecision,
    GatePolled,
    Item,
    ItemsCollected,
    LimitReached,
    Outcome,
    Reported,
    Started,
    TimerDue,
    dump_fact,
    kind_of,
    load_fact,
)


@pytest.mark.parametrize(
    "fact",
    [
        Started(),
        Reported(
            task_id="t",
            outcome=Outcome.COMPLETED,
            markers=("m", "é"),
            metadata={"cost_usd": "1"},
            structured_output="{}",
        ),
        Reported(task_id="t", outcome=Outcome.FAILED, error="x", retryable=False, jitter=0.25),
        GateDecided(gate_id="g", decision=GateDecision.REJECTED, feedback="no", decided_by="ann"),
        GateDecided(gate_id="g", decision=GateDecision.APPROVED, selections=("x", "y")),
        GateDecided(gate_id="g", decision=GateDecision.APPROVED, poll_id="p"),
        GatePolled(task_id="t", delay_s=2.5, note="soon"),
        ItemsCollected(
            task_id="t",
            items=(Item("repo", "1", "one", {"k": "v"}), Item("repo", "2")),
            dependencies=(Dependency("1", "2"),),
        ),
        ItemsCollected(task_id="t"),
        ChildEnded(child_run_id="c", child_epoch=2, status="failed", error="no", retryable=False),
        ChildEnded(
            child_run_id="c",
            child_epoch=1,
            status="completed",
            results=ChildResults(
                context="done",
                markers=("m",),
                contexts=None,
                exports={"x": "1"},
                markers_by_step={"a": ("m", "n"), "b": ()},
                outputs_by_step={"a": "{}"},
            ),
            metrics={"cost_usd": 0.5},
        ),
        ChildBlocked(child_run_id="c", child_epoch=1, blocked_on={"type": "human_review"}),
        ChildBlocked(child_run_id="c", child_epoch=1, blocked_on=None),
        TimerDue(timer_id="r"),
        CancelAsked(reason="", force=True),
        LimitReached(epoch=1, reason="too much"),
    ],
    ids=kind_of,
)
def test_stored_facts_come_back_equal(fact: Fact) -> None:
    """Types included, so that a decision does not depend on where the fact came from."""
    loaded = load_fact(kind_of(fact), dump_fact(fact))

    assert loaded == fact
    assert type(loaded) is type(fact)


def test_unknown_kind_is_refused() -> None:
    """Written by a newer server; this one must not guess."""
    with pytest.raises(KeyError):
        load_fact("resumed", "{}")
