"""Invariants of progress, once the faults have ended: L1, L2, and that rare things did occur."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.verify.evidence import Evidence, Fault, RunEvidence
    from runkon_server.verify.plans import Plans

HAND_OFF_S: Final = 1.0
TAKEOVER_TTLS: Final = 1.5
_TTLS: Final = 3
_TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


def l1_runs_come_to_rest(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Some time after the last fault every run is over, or waits for a gate and nothing else.

    That time is three leases and the longest step. Earlier nothing is due.
    """
    if evidence.healed_at is None:
        return
    patience_s = _TTLS * evidence.limits.lease_ttl_s + evidence.limits.longest_step_s
    if evidence.taken_at < evidence.healed_at + patience_s:
        return
    for run in evidence.runs.values():
        status = str(run.row["status"])
        if status in _TERMINAL:
            what = _left_over(run)
        elif status == "waiting" and not run.facts:
            what = None
        else:
            facts = f" with {len(run.facts)} facts to apply" if run.facts else ""
            what = f"still {status}{facts}, {evidence.taken_at - evidence.healed_at:.1f} s later"
        if what is not None:
            yield Violation(invariant="L1", run_id=run.run_id, what=what)


def _left_over(run: RunEvidence) -> str | None:
    """What an ended run has left open."""
    tasks = [task["id"] for task in run.tasks if task["state"] in {"queued", "leased"}]
    gates = [gate["id"] for gate in run.gates if gate["state"] == "pending"]
    timers = [timer["id"] for timer in run.timers]
    if not run.row.get("parent_notified", True):
        return "it has ended, and its parent has not been told"
    return (
        f"it has ended, and left {[*tasks, *gates, *timers]}" if tasks or gates or timers else None
    )


def l2_takeover_is_swift(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """What a killed replica owned moves within 1.5 leases; after a SIGTERM within a second."""
    for fault in evidence.faults:
        if fault.kind not in {"kill", "term"} or fault.owner_token is None:
            continue
        bound_s = HAND_OFF_S
        if fault.kind == "kill":
            bound_s = TAKEOVER_TTLS * evidence.limits.lease_ttl_s
        for run_id in _owned_by(evidence, fault):
            moved_at = _moves_again(evidence, run_id, fault.at)
            late_s = min(moved_at, evidence.taken_at) - fault.at
            if late_s > bound_s:
                what = f"{late_s:.2f} s after a {fault.kind}, at most {bound_s:.2f}"
                yield Violation(invariant="L2", run_id=run_id, what=what)


def _owned_by(evidence: Evidence, fault: Fault) -> list[str]:
    """The runs that the replica owned when it was hit, and that had neither ended nor parked."""
    owners: dict[str, str] = {}
    for each in evidence.ownership:
        if each.at <= fault.at:
            owners[each.run_id] = each.token
    return [
        run_id
        for run_id, token in owners.items()
        if token == fault.owner_token
        and run_id in evidence.runs
        and not _rests(evidence.runs[run_id], fault.at)
    ]


def _rests(run: RunEvidence, at: float) -> bool:
    """Whether at an instant the run was over, or waited for a gate."""
    kinds = [event.kind for event in run.events if event.at <= at]
    past = [kind for kind in kinds if kind in _REST or kind in _UNREST]
    return bool(past) and past[-1] in _REST


_REST: Final = frozenset({"run_finished", "run_waiting"})
_UNREST: Final = frozenset(
    {"run_started", "run_resumed", "run_unblocked", "run_cancel_requested", "gate_resolved"}
)


def _moves_again(evidence: Evidence, run_id: str, at: float) -> float:
    """When a run was taken or had an event next; infinite: never."""
    taken = (each.at for each in evidence.ownership if each.run_id == run_id and each.at > at)
    events = (event.at for event in evidence.runs[run_id].events if event.at > at)
    return min((*taken, *events), default=float("inf"))
