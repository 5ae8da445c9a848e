"""Each invariant holds of a good history and fails of one that breaks it: none is vacuous.

The good histories are played by the engine; what is broken in them is one event, row or answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from runkon_server.core.facts import Dependency, Item, ItemsCollected
from runkon_server.verify import invariants_clients as clients
from runkon_server.verify import invariants_liveness as liveness
from runkon_server.verify import invariants_log as log
from runkon_server.verify import invariants_work as work
from runkon_server.verify.evidence import (
    Delivery,
    Effect,
    Evidence,
    Fault,
    Limits,
    Operation,
    Ownership,
    Subscription,
)
from runkon_server.verify.invariants import ALL, check
from runkon_server.verify.plans import Plans
from runkon_server.verify.sometimes import sometimes_occurred
from support.evidence import (
    SPACING_S,
    altered,
    copy_of,
    edited,
    evidence_of,
    healed,
    only,
    redefined,
    same_child,
    soon,
    twice,
    with_child,
    with_event,
    with_more,
    with_row,
    without,
)
from support.plays import Play

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.verify.invariants import Invariant

RUN: Final = "01RUN"
TASK: Final = f"{RUN}/b.0000/e1/0#0"


def plain() -> Evidence:
    """Two steps, the second one in its second attempt, and an always section."""
    text = 'call a call b { retries = 1 retry_delay = "5s" timeout = "1m" } always { call c }'
    play = Play(text)
    play.complete("a")
    play.fail("b")
    play.pass_time("retry")
    play.complete("b")
    play.complete("c")
    return evidence_of(play.world)


def late() -> Evidence:
    """A step that ran out of time."""
    play = Play('call a { timeout = "1m" }')
    play.pass_time("deadline")
    return evidence_of(play.world)


def cancelled() -> Evidence:
    play = Play("call a call b always { call c }")
    play.cancel()
    play.stopped("a")
    play.complete("c")
    return evidence_of(play.world)


def gated() -> Evidence:
    """A gate that one person has approved."""
    play = Play('gate human_review { prompt = "well?" timeout = "90s" } call a')
    play.approve()
    evidence = evidence_of(play.world)
    (gate,) = only(evidence).gates
    vote = {"gate_id": gate["id"], "principal": "ann", "decision": "approve"}
    return edited(evidence, gates=[{**gate, "resolved_by": "ann"}], votes=[vote])


def looping() -> Evidence:
    play = Play("call a while a.again { max_iterations = 3 call b }")
    play.complete("a", markers=("again",))
    play.complete("b")
    return evidence_of(play.world)


def fanned() -> Evidence:
    """Two items, of which the second waits for the first."""
    play = Play("foreach f { over = things workflow = child ordered = true max_parallel = 1 }")
    found = (Item("thing", "x"), Item("thing", "y"))
    task = play.task("foreach:f").task_id
    play.happen(ItemsCollected(task_id=task, items=found, dependencies=(Dependency("x", "y"),)))
    for _ in found:
        play.end_child()
    return evidence_of(play.world)


def parent() -> Evidence:
    play = Play("call workflow child")
    play.end_child()
    return evidence_of(play.world)


def test_good_histories_pass() -> None:
    for history in (plain, late, cancelled, gated, looping, fanned, parent):
        assert check(history()) == [], history


def owned(*generations: tuple[int, str]) -> Evidence:
    takings = [
        Ownership(run_id=RUN, generation=generation, token=token, at=float(number))
        for number, (generation, token) in enumerate(generations)
    ]
    evidence = with_row(plain(), generation=9)
    return replace(evidence, ownership=takings, is_ownership_complete=True)


def called(op: str, kind: Any = "ok", op_id: str = "1", **about: Any) -> Operation:
    """An outcome; `run_id`, `status`, `resolved_by` are of the result, the rest is asked for."""
    told = ("run_id", "status", "resolved_by")
    result: dict[str, Any] = {key: about.pop(key) for key in told if key in about}
    return Operation(
        mono_s=5.0, proc="c1", op_id=op_id, kind=kind, op=op, args=about, result=result
    )


def told(*seqs: int, **more: Any) -> Evidence:
    """A subscriber that got these events as they are."""
    evidence = plain()
    events = {event.seq: event for event in only(evidence).events}
    deliveries = [
        Delivery(seq=seq, kind=events[seq].kind, epoch=1, payload=events[seq].payload)
        if seq in events
        else Delivery(seq=seq, kind="step_started", epoch=1)
        for seq in seqs
    ]
    follower = Subscription(subscriber="s", run_id=RUN, deliveries=deliveries, **more)
    return replace(evidence, subscriptions=[follower])


def killed(kind: str, moves: float) -> Evidence:
    """A replica is hit right before the run's last event but one; it comes `moves` seconds later.

    A lease lasts 10 s.
    """
    evidence = plain()
    events = list(only(evidence).events)[:4]
    at = events[-2].at
    events[-1] = replace(events[-1], at=at + moves)
    return replace(
        edited(evidence, events=events),
        ownership=[Ownership(run_id=RUN, generation=1, token="A", at=0.0)],
        faults=[Fault(kind=kind, at=at, owner_token="A")],
        limits=Limits(lease_ttl_s=10.0),
        taken_at=at + 1e6,
    )


def effects(*effects: Effect, of: Callable[[], Evidence] = plain) -> Evidence:
    return replace(of(), effects=effects, are_effects_complete=True)


def effect(key: str, **more: Any) -> Effect:
    return Effect(**{"idem_key": key, "run_id": RUN, "step": key.partition("/")[2], **more})


def queued(queue: str, *served: Sequence[str]) -> Evidence:
    """A run in a queue, with effects of workers that serve these."""
    run = with_row(plain(), labels={"queue": queue} if queue else {})
    rows = "" if queue == "default" else queue
    tasks = [{**task, "queue": rows} for task in only(run).tasks]
    done = [effect(f"{RUN}/b.0000", queues=each) for each in served]
    return replace(edited(run, tasks=tasks), effects=done)


def resumed_after_cancel() -> Evidence:
    more = {"workflow_name": "w", "mode": "normal"}
    return with_row(with_more(cancelled(), "run_resumed", more, epoch=2), epoch=2)


EVERY_EFFECT: Final = tuple(effect(f"{RUN}/{at}") for at in ("b.0000", "b.0001", "z.0000"))
REPORT: Final[dict[str, Any]] = {
    "task_id": TASK,
    "token": "token",
    "digest": "digest",
    "status": "accepted",
}
VOTE: Final[dict[str, Any]] = {"gate_id": f"{RUN}/b.0000/e1/0", "principal": "ann", "approve": True}

FINE: Final[dict[str, tuple[Invariant, Callable[[], Evidence]]]] = {
    "taken again": (
        log.s1_one_owner_per_generation,
        lambda: owned((1, "A"), (2, "B"), (2, "B"), (3, "A")),
    ),
    "followed": (clients.s6_streams_are_the_log, lambda: told(2, 3, 4, after_seq=1)),
    "every effect": (work.s15_completed_steps_have_effects, lambda: effects(*EVERY_EFFECT)),
    "effect again": (work.s16_one_key_per_effect, lambda: effects(*EVERY_EFFECT * 2)),
    "served queue": (
        work.s26_queues_are_kept,
        lambda: queued("south", ["default", "south"], ["south"], ["*"]),
    ),
    "default queue": (work.s26_queues_are_kept, lambda: queued("", [], [""], ["default"], ["*"])),
    "queue by name": (work.s26_queues_are_kept, lambda: queued("default", [], ["default"])),
    "vote counts": (
        clients.s10_one_winner_per_gate,
        lambda: replace(gated(), operations=[called("ResolveGate", **VOTE)]),
    ),
    "loser is told": (
        clients.s10_one_winner_per_gate,
        lambda: replace(
            gated(),
            operations=[
                called("ResolveGate", "fail", **VOTE | {"principal": "bob"}, resolved_by="ann")
            ],
        ),
    ),
    "report counts": (
        work.s13_one_completion_per_attempt,
        lambda: replace(plain(), operations=[called("ReportTask", **REPORT)]),
    ),
    "refused, then done": (
        clients.s3_answers_are_true,
        lambda: replace(
            with_row(plain(), labels={"name": "n"}),
            operations=[
                called("StartRun", "info", name="n"),
                called("StartRun", "fail", name="n", op_id="2"),
            ],
        ),
    ),
    "nothing is due yet": (
        liveness.l1_runs_come_to_rest,
        lambda: replace(going_on(), healed_at=0.0),
    ),
    "taken over": (liveness.l2_takeover_is_swift, lambda: killed("kill", 14.9)),
    "handed over": (liveness.l2_takeover_is_swift, lambda: killed("term", 0.9)),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_passes(name: str) -> None:
    """What an invariant that is too strict would take offence at."""
    invariant, history = FINE[name]
    evidence = history()

    assert list(invariant(evidence, Plans(evidence.definitions))) == []


def going_on() -> Evidence:
    """A run that goes on, and is being watched."""
    return evidence_of(Play("call a").world)


BROKEN: Final[dict[str, tuple[Invariant, Callable[[], Evidence]]]] = {
    "s1 two owners": (log.s1_one_owner_per_generation, lambda: owned((1, "A"), (1, "B"))),
    "s1 generation falls": (log.s1_one_owner_per_generation, lambda: owned((2, "A"), (1, "B"))),
    "s1 generation jumps": (log.s1_one_owner_per_generation, lambda: owned((1, "A"), (3, "B"))),
    "s1 row behind": (log.s1_one_owner_per_generation, lambda: owned((11, "A"))),
    "s2 zombie": (
        log.s2_generation_never_falls,
        lambda: with_event(with_row(plain(), generation=2), "step_started", generation=2),
    ),
    "s2 row behind": (
        log.s2_generation_never_falls,
        lambda: with_event(plain(), "run_finished", generation=2),
    ),
    "s3 lost": (
        clients.s3_answers_are_true,
        lambda: replace(plain(), operations=[called("StartRun", run_id="01GONE")]),
    ),
    "s3 refused and there": (
        clients.s3_answers_are_true,
        lambda: replace(
            with_row(plain(), labels={"name": "n"}),
            operations=[called("StartRun", "fail", name="n")],
        ),
    ),
    "s4 two answers": (
        clients.s4_requests_count_once,
        lambda: replace(
            plain(),
            operations=[
                called("StartRun", request_id="r", digest="d", run_id=RUN),
                called("StartRun", request_id="r", digest="d", run_id="01OTHER"),
            ],
        ),
    ),
    "s4 two contents": (
        clients.s4_requests_count_once,
        lambda: replace(
            plain(),
            operations=[
                called("CancelRun", request_id="r", digest=digest, run_id=RUN)
                for digest in ("d", "e")
            ],
        ),
    ),
    "s4 two runs": (clients.s4_requests_count_once, lambda: twice(plain())),
    "s5 hole": (log.s5_sequence_is_dense, lambda: with_event(plain(), "run_finished", seq=99)),
    "s5 uncounted": (log.s5_sequence_is_dense, lambda: with_row(plain(), last_seq=3)),
    "s6 gap": (clients.s6_streams_are_the_log, lambda: told(1, 3)),
    "s6 twice": (clients.s6_streams_are_the_log, lambda: told(1, 2, 2)),
    "s6 from elsewhere": (clients.s6_streams_are_the_log, lambda: told(2, after_seq=0)),
    "s6 uncommitted": (clients.s6_streams_are_the_log, lambda: told(99, after_seq=98)),
    "s6 ended early": (clients.s6_streams_are_the_log, lambda: told(1, 2, is_ended=True)),
    "s6 other kind": (
        clients.s6_streams_are_the_log,
        lambda: with_event(told(1, 2), "step_started", kind="step_failed"),
    ),
    "s6 other payload": (
        clients.s6_streams_are_the_log,
        lambda: with_event(told(1, 2), "run_started", payload={}),
    ),
    "s7 status": (work.s7_events_give_the_rows, lambda: with_row(plain(), status="failed")),
    "s7 error": (work.s7_events_give_the_rows, lambda: with_row(plain(), error="none told")),
    "s7 step": (
        work.s7_events_give_the_rows,
        lambda: altered(plain(), "steps", result_text="another"),
    ),
    "s7 step untold": (
        work.s7_events_give_the_rows,
        lambda: edited(plain(), steps=[*only(plain()).steps, {"id": "x", "status": "running"}]),
    ),
    "s7 step unwritten": (work.s7_events_give_the_rows, lambda: edited(plain(), steps=[])),
    "s7 item": (work.s7_events_give_the_rows, lambda: altered(fanned(), "items", status="failed")),
    "s7 gate": (work.s7_events_give_the_rows, lambda: altered(gated(), "gates", state="rejected")),
    "s7 gate untold": (work.s7_events_give_the_rows, lambda: edited(gated(), gates=[])),
    "s7 log torn": (
        work.s7_events_give_the_rows,
        lambda: without(fanned(), "fan_out_items_collected", "step_started"),
    ),
    "s8 after the end": (
        log.s8_transitions_are_legal,
        lambda: with_more(plain(), "metrics_updated", {"metrics": {}}),
    ),
    "s8 resumed a cancelled run": (log.s8_transitions_are_legal, resumed_after_cancel),
    "s8 epoch by itself": (
        log.s8_transitions_are_legal,
        lambda: with_event(plain(), "run_finished", epoch=2),
    ),
    "s8 before the start": (log.s8_transitions_are_legal, lambda: without(plain(), "run_started")),
    "s8 unblocked": (
        log.s8_transitions_are_legal,
        lambda: with_event(plain(), "step_started", kind="run_unblocked"),
    ),
    "s8 waits in a cancel": (
        log.s8_transitions_are_legal,
        lambda: with_event(cancelled(), "step_started", 1, kind="run_waiting"),
    ),
    "s8 started twice": (
        log.s8_transitions_are_legal,
        lambda: with_event(plain(), "step_started", kind="run_started"),
    ),
    "s8 cancelled completes": (
        log.s8_transitions_are_legal,
        lambda: with_event(cancelled(), "run_finished", payload={"status": "completed"}),
    ),
    "s8 step ends twice": (
        log.s8_transitions_are_legal,
        lambda: with_event(plain(), "always_started", **copy_of(plain(), "step_completed")),
    ),
    "s9 no end": (log.s9_one_end_per_epoch, lambda: without(plain(), "run_finished")),
    "s9 two ends": (
        log.s9_one_end_per_epoch,
        lambda: with_more(plain(), "run_finished", {"status": "completed"}),
    ),
    "s9 not the last": (
        log.s9_one_end_per_epoch,
        lambda: with_more(plain(), "metrics_updated", {"metrics": {}}),
    ),
    "s9 another status": (log.s9_one_end_per_epoch, lambda: with_row(plain(), status="failed")),
    "s10 two winners": (
        clients.s10_one_winner_per_gate,
        lambda: with_more(gated(), **copy_of(gated(), "gate_resolved")),
    ),
    "s10 vote lost": (
        clients.s10_one_winner_per_gate,
        lambda: replace(gated(), operations=[called("ResolveGate", **VOTE | {"principal": "bob"})]),
    ),
    "s10 rejection overruled": (
        clients.s10_one_winner_per_gate,
        lambda: replace(
            altered(gated(), "votes", decision="reject"),
            operations=[called("ResolveGate", **VOTE | {"approve": False})],
        ),
    ),
    "s10 another winner told": (
        clients.s10_one_winner_per_gate,
        lambda: replace(
            gated(), operations=[called("ResolveGate", "fail", **VOTE, resolved_by="bob")]
        ),
    ),
    "s11 step": (
        log.s11_nothing_starts_after_cancel,
        lambda: with_event(cancelled(), "step_failed", kind="step_started"),
    ),
    "s11 item": (
        log.s11_nothing_starts_after_cancel,
        lambda: with_event(
            cancelled(),
            "step_failed",
            kind="fan_out_item_started",
            payload={"item": {"step_run_id": f"{RUN}/b.0001/e1/0"}},
        ),
    ),
    "s11 child": (
        log.s11_nothing_starts_after_cancel,
        lambda: with_event(
            cancelled(),
            "step_failed",
            kind="child_run_started",
            payload={"step_id": f"{RUN}/b.0001/e1/0"},
        ),
    ),
    "s12 never": (log.s12_always_once_per_epoch, lambda: without(plain(), "always_started")),
    "s12 twice": (
        log.s12_always_once_per_epoch,
        lambda: with_event(plain(), "metrics_updated", kind="always_started"),
    ),
    "s13 two accepted": (
        work.s13_one_completion_per_attempt,
        lambda: replace(
            plain(),
            operations=[
                called("ReportTask", **REPORT),
                called("ReportTask", **REPORT | {"digest": "other"}),
            ],
        ),
    ),
    "s13 wrong token": (
        work.s13_one_completion_per_attempt,
        lambda: replace(plain(), operations=[called("ReportTask", **REPORT | {"token": "forged"})]),
    ),
    "s13 not done": (
        work.s13_one_completion_per_attempt,
        lambda: replace(
            edited(plain(), tasks=[{**task, "state": "queued"} for task in only(plain()).tasks]),
            operations=[called("ReportTask", **REPORT)],
        ),
    ),
    "s13 ended twice": (
        work.s13_one_completion_per_attempt,
        lambda: with_event(plain(), "always_started", **copy_of(plain(), "step_completed")),
    ),
    "s14 started anew": (
        work.s14_attempts_are_bounded,
        lambda: with_event(plain(), "step_started", 2, **copy_of(plain(), "step_started", 1)),
    ),
    "s14 skipped one": (work.s14_attempts_are_bounded, lambda: without(plain(), nth=1)),
    "s14 too many": (work.s14_attempts_are_bounded, lambda: redefined(plain(), "retries")),
    "s14 handed out too often": (
        work.s14_attempts_are_bounded,
        lambda: replace(altered(plain(), "tasks", delivery=3), limits=Limits(deliveries_max=3)),
    ),
    "s15 no effect": (
        work.s15_completed_steps_have_effects,
        lambda: effects(*EVERY_EFFECT[1:]),
    ),
    "s16 key of the attempt": (
        work.s16_one_key_per_effect,
        lambda: effects(effect("k/s"), effect("k/s#1", step="s")),
    ),
    "s16 key of two steps": (
        work.s16_one_key_per_effect,
        lambda: effects(effect("k/s"), effect("k/s", step="t")),
    ),
    "s17 row": (
        work.s17_fan_outs_add_up,
        lambda: altered(fanned(), "steps", fan_out_completed=1),
    ),
    "s17 event": (
        work.s17_fan_outs_add_up,
        lambda: with_event(
            fanned(), "fan_out_item_completed", **copy_of(fanned(), "fan_out_item_completed", 1)
        ),
    ),
    "s17 collected twice": (
        work.s17_fan_outs_add_up,
        lambda: with_event(
            fanned(), "metrics_updated", **copy_of(fanned(), "fan_out_items_collected")
        ),
    ),
    "s17 too many at a time": (
        work.s17_fan_outs_add_up,
        lambda: without(fanned(), "fan_out_item_completed"),
    ),
    "s17 one child of two items": (work.s17_fan_outs_add_up, lambda: same_child(fanned())),
    "s18 consumed twice": (
        work.s18_children_end_once,
        lambda: with_event(parent(), "metrics_updated", **copy_of(parent(), "child_run_finished")),
    ),
    "s18 dependent first": (
        work.s18_children_end_once,
        lambda: without(fanned(), "fan_out_item_completed"),
    ),
    "s19 elsewhere": (
        work.s19_definition_stays_pinned,
        lambda: altered(plain(), "steps", path="always.7"),
    ),
    "s19 other section": (
        work.s19_definition_stays_pinned,
        lambda: altered(plain(), "steps", path="body.0"),
    ),
    "s20 loop": (log.s20_bounds_hold, lambda: another_pass(looping())),
    "s20 budget": (log.s20_bounds_hold, lambda: with_child(with_row(parent(), descendants=0))),
    "s21 retry": (log.s21_nothing_fires_early, lambda: soon(plain(), "step_started", 2, 4.9)),
    "s21 deadline": (log.s21_nothing_fires_early, lambda: soon(late(), "step_timed_out", 0, 59.9)),
    "s21 gate": (
        log.s21_nothing_fires_early,
        lambda: soon(timed_out(), "gate_resolved", 0, 89.9),
    ),
    "s24 secret": (
        clients.s24_secrets_stay_out,
        lambda: replace(altered(plain(), "steps", result_text="say xyzzy"), canaries=["xyzzy"]),
    ),
    "s26 not served": (work.s26_queues_are_kept, lambda: queued("south", ["south"], ["north"])),
    "s26 served by default": (work.s26_queues_are_kept, lambda: queued("south", [])),
    "s26 default not served": (work.s26_queues_are_kept, lambda: queued("", ["south"])),
    "s26 task elsewhere": (
        work.s26_queues_are_kept,
        lambda: altered(queued("south"), "tasks", queue="north"),
    ),
    "l1 goes on": (liveness.l1_runs_come_to_rest, lambda: healed(going_on())),
    "l1 untold": (
        liveness.l1_runs_come_to_rest,
        lambda: healed(with_row(plain(), parent_notified=False)),
    ),
    "l1 left over": (
        liveness.l1_runs_come_to_rest,
        lambda: healed(edited(plain(), timers=[{"id": "t"}])),
    ),
    "l1 unheard": (
        liveness.l1_runs_come_to_rest,
        lambda: healed(edited(with_row(gated(), status="waiting"), facts=[{"fact_seq": 9}])),
    ),
    "l2 killed": (liveness.l2_takeover_is_swift, lambda: killed("kill", 15.1)),
    "l2 terminated": (liveness.l2_takeover_is_swift, lambda: killed("term", 1.1)),
    "l8 no answer": (
        clients.l8_last_operations_succeed,
        lambda: healed(plain(), operations=[called("CancelRun", "info", run_id=RUN)]),
    ),
    "l8 never occurred": (sometimes_occurred, lambda: healed(plain(), sometimes={"steal": 0})),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    """By the invariant itself, under its number."""
    invariant, history = BROKEN[name]
    evidence = history()
    found = list(invariant(evidence, Plans(evidence.definitions)))

    assert found
    assert {each.invariant for each in found} == {name.split(maxsplit=1)[0].upper()}


def test_every_invariant_has_been_broken() -> None:
    assert {invariant for invariant, _ in BROKEN.values()} == set(ALL)


def test_nothing_is_due_before_the_faults_have_ended() -> None:
    """A history that nobody has healed yet owes no progress."""
    evidence = replace(going_on(), taken_at=SPACING_S, sometimes={"steal": 0})

    assert check(evidence) == []


def another_pass(evidence: Evidence) -> Evidence:
    """One that is one too many."""
    started = copy_of(evidence, "step_started", 1)
    step = {**started["payload"]["step"], "iterations": [3]}
    return with_event(evidence, "step_started", 1, payload={"step": step})


def timed_out() -> Evidence:
    play = Play('gate human_review { timeout = "90s" on_timeout = continue }')
    play.let_gate_time_out()
    return evidence_of(play.world)
