"""Identities."""

from __future__ import annotations

import re

from runkon_server.core import ids

PARENT = "01J5ZK3V8QABCDEFGHJKMNPQRS"


def test_child_runs_have_ulids_in_the_time_of_their_parent() -> None:
    """So a whole tree of runs lies in one partition, and their ids look like any other."""
    child = ids.child_run_id(ids.step_id(PARENT, "b.0001", 1, 0))

    assert re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", child)
    assert child[:10] == PARENT[:10]


def test_every_attempt_epoch_place_and_item_has_a_child_of_its_own() -> None:
    """And the same one again when a decision is made again."""
    steps = [
        ids.step_id(parent, at, epoch, attempt)
        for parent in (PARENT, PARENT[:-1] + "T")
        for at in ("b.0001", "b.0002")
        for epoch in (1, 2)
        for attempt in (0, 1)
    ]
    names = [*steps, *(ids.item_id(step, ordinal) for step in steps for ordinal in (0, 1, 10))]
    children = [ids.child_run_id(name) for name in names]

    assert len(set(children)) == len(children)
    assert all(len({child[place] for child in children}) > 5 for place in range(10, 26))
    assert children == [ids.child_run_id(name) for name in names]


def test_ids_lead_back_to_their_run() -> None:
    """Whatever they name."""
    step = ids.step_id(PARENT, "b.0001", 1, 0)
    named = [ids.item_id(step, 3), ids.poll_timer(ids.task_id(step, 2)), step]

    assert {ids.run_of(name) for name in named} == {PARENT}


def test_every_pause_deadline_and_grace_has_a_timer_of_its_own() -> None:
    """A timer is set once in a run's life, so that a late one is nobody else's."""
    steps = [
        ids.step_id(PARENT, "b.0001", epoch, attempt) for epoch in (1, 2) for attempt in (0, 1)
    ]
    tasks = [ids.task_id(step, attempt) for step in steps for attempt in (0, 1)]
    timers = [
        *map(ids.deadline_timer, steps),
        *map(ids.gate_timer, steps),
        *map(ids.retry_timer, tasks),
        *map(ids.poll_timer, tasks),
        *(
            ids.grace_timer(PARENT, phase, epoch)
            for phase in ("body", "always")
            for epoch in (1, 2)
        ),
    ]

    assert len(set(timers)) == len(timers)
