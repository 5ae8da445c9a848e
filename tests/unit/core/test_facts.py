"""Facts as they are stored."""

from __future__ import annotations

import pytest

from runkon_server.core.facts import (
    CancelAsked,
    Fact,
    GateDecided,
    GateDecision,
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
        TimerDue(timer_id="r"),
        CancelAsked(reason="", force=True),
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
