"""Gates: the places where a run waits for a decision from outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from runkon_client.values.runs import GateOption


class GateState(StrEnum):
    """State of a gate; all but `PENDING` are final."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class GateDecision(StrEnum):
    """What a vote says."""

    UNKNOWN = "unknown"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVote:
    """What one principal said; each has at most one vote per gate."""

    principal: str
    decision: GateDecision
    feedback: str
    selections: tuple[str, ...]
    on_behalf_of: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One place where one run waits; `approvers` is how many principals have to approve."""

    id: str
    namespace: str
    run_id: str
    step_id: str
    name: str
    type: str
    iteration: int
    prompt: str
    options: tuple[GateOption, ...]
    approvers: int
    exclude_starter: bool
    votes: tuple[GateVote, ...]
    state: GateState
    opened_at: datetime | None
    deadline_at: datetime | None
    resolved_at: datetime | None
    resolved_by: str
    on_behalf_of: str
    feedback: str
    selections: tuple[str, ...]
    workflow_name: str
    display_name: str
    labels: Mapping[str, str]
