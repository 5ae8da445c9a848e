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


class ApprovalMode(StrEnum):
    """What a `pr_approval` gate looks at."""

    UNKNOWN = "unknown"
    MIN_APPROVALS = "min_approvals"
    REVIEW_DECISION = "review_decision"


class ReviewDecision(StrEnum):
    """What a forge makes of all reviews of a pull request; `UNKNOWN` where it has no say."""

    UNKNOWN = "unknown"
    APPROVED = "approved"
    CHANGES_REQUESTED = "changes_requested"
    REVIEW_REQUIRED = "review_required"


class CheckState(StrEnum):
    """How one check of a pull request stands; `FAILED` is every bad end."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestApproval:
    """One reviewer's approval of one commit; it counts if that is the head commit."""

    reviewer: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestCheck:
    """One check of the head commit."""

    name: str
    state: CheckState


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """How a pull request stands at one moment, for `report_pull_request`.

    `approvals` are those of reviewers whose last word was to approve; `checks` are all checks of
    the head commit; `url` is where a person can look.
    """

    head_commit: str
    author: str = ""
    approvals: tuple[PullRequestApproval, ...] = ()
    review_decision: ReviewDecision = ReviewDecision.UNKNOWN
    checks: tuple[PullRequestCheck, ...] = ()
    url: str = ""


@dataclass(frozen=True, slots=True)
class ReportedPullRequest:
    """What a report came to: `pending_reason` says what is missing, and is empty if nothing is."""

    gate: Gate
    pending_reason: str


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
    """One place where one run waits; `approvers` is how many principals have to approve.

    `min_approvals` and `approval_mode` are those of a `pr_approval` gate; 0 and None of others.
    """

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
    min_approvals: int
    approval_mode: ApprovalMode | None
