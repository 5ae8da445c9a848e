"""How a gate is decided: its row, its event and the fact for the owner, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runkon_server import errors
from runkon_server.core.facts import GateDecided
from runkon_server.core.gates import PR_APPROVAL
from runkon_server.core.ids import ALWAYS
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.facts import GateDecision
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedGate, LockedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How a gate is decided, and by whom."""

    decision: GateDecision
    resolved_by: str | None = None
    """None: the deadline, or a worker without a name."""
    on_behalf_of: str | None = None
    feedback: str | None = None
    selections: list[str] | None = None
    poll_id: str | None = None


def settle(batch: Batch, run: LockedRun, gate: LockedGate, found: Resolution) -> FactRecorded:
    """Write the decision to the gate's row, tell it, and record the fact for the owner."""
    gate.state = found.decision.value
    gate.resolved_by = found.resolved_by
    row: dict[str, Any] = {
        "run_id": run.id,
        "id": gate.id,
        "state": gate.state,
        "resolved_by": found.resolved_by,
        "on_behalf_of": found.on_behalf_of,
        "feedback": found.feedback,
        "selections": found.selections,
    }
    batch.writes.gate_ends.append(row)
    told = {
        "id": gate.id,
        "step_id": gate.step_id,
        "name": gate.name,
        "gate_type": gate.gate_type,
        "iteration": gate.iteration,
        "prompt": gate.prompt,
        "options": [{"key": key, "label": label} for key, label in gate.options or ()],
        "approvers": gate.approvers,
        "exclude_starter": gate.exclude_starter,
        **{key: value for key, value in row.items() if key != "run_id"},
    }
    if gate.gate_type == PR_APPROVAL:
        told |= {"min_approvals": gate.min_approvals, "approval_mode": gate.approval_mode}
    batch.append_event(
        run, "gate_resolved", to_json({"gate": {k: v for k, v in told.items() if v is not None}})
    )
    return batch.record_fact(
        run,
        GateDecided(
            gate_id=gate.id,
            decision=found.decision,
            feedback=found.feedback,
            selections=tuple(found.selections or ()),
            decided_by=found.resolved_by,
            poll_id=found.poll_id,
        ),
    )


def require_open(run: LockedRun, gate: LockedGate) -> None:
    """Refuse what comes too late for a gate.

    Raises:
        GateAlreadyResolvedError, GateTimedOutError, GateClosedError
    """
    _require_pending(gate)
    if run.is_terminal or is_about_to_close(run, gate):
        raise errors.GateClosedError(gate.id)
    if gate.is_due:
        raise errors.GateTimedOutError(gate.id)


def is_about_to_close(run: LockedRun, gate: LockedGate) -> bool:
    """Whether a cancel that is recorded, and perhaps not applied yet, closes the gate.

    Until its owner has done so the row says pending, and nothing else may decide it. A gate of the
    always section has a life of its own.
    """
    is_of_body = not gate.step_id.partition("/")[2].startswith(ALWAYS)
    return run.status == "cancelling" and is_of_body


def _require_pending(gate: LockedGate) -> None:
    match gate.state:
        case "pending":
            return
        case "timed_out":
            raise errors.GateTimedOutError(gate.id)
        case "cancelled":
            raise errors.GateClosedError(gate.id)
        case _:
            raise errors.GateAlreadyResolvedError(
                gate.id, decision=gate.state, resolved_by=gate.resolved_by or "the server"
            )


def wrong_selections(gate: LockedGate, selections: Iterable[str]) -> list[str]:
    """Those that are not among the gate's options."""
    options = {key for key, _ in gate.options or ()}
    return [each for each in selections if each not in options]


def last_words(gate: LockedGate) -> tuple[str | None, list[str] | None]:
    """The newest feedback and the newest selections among the votes."""
    feedback = next((v.feedback for v in reversed(gate.votes) if v.feedback is not None), None)
    selections = next((v.selections for v in reversed(gate.votes) if v.selections), None)
    return feedback, selections
