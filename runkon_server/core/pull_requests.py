"""When the state of a pull request satisfies a gate; asked by whoever records a report of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runkon_server.dsl.ast import ApprovalMode


class ReviewDecision(StrEnum):
    """What a forge makes of all reviews, by its own rules."""

    UNKNOWN = "unknown"
    APPROVED = "approved"
    CHANGES_REQUESTED = "changes_requested"
    REVIEW_REQUIRED = "review_required"


class CheckState(StrEnum):
    """How one check of a commit stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Approval:
    """One reviewer's last word, which was to approve."""

    reviewer: str
    commit: str
    """The one that was approved."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the head commit."""

    name: str
    state: CheckState


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """How a pull request stands at one moment."""

    head_commit: str
    author: str = ""
    """Empty: not known."""
    approvals: tuple[Approval, ...] = ()
    review_decision: ReviewDecision = ReviewDecision.UNKNOWN
    checks: tuple[Check, ...] = ()


def judge(
    *, gate_type: str, min_approvals: int, approval_mode: str, pull_request: PullRequest
) -> str | None:
    """What a `pr_approval` or `pr_checks` gate still misses, one sentence; None: it is satisfied.

    Only approvals of the head commit count, each reviewer's once and the author's never; a push
    after an approval takes it back. A report never rejects.
    """
    if gate_type == "pr_checks":
        return _missing_checks(pull_request)
    if approval_mode == ApprovalMode.REVIEW_DECISION:
        return _missing_decision(pull_request)
    approving = {
        approval.reviewer
        for approval in pull_request.approvals
        if approval.commit == pull_request.head_commit
    } - {pull_request.author}
    if len(approving) >= min_approvals:
        return None
    return f"{len(approving)} of {min_approvals} approvals of {pull_request.head_commit}"


def _missing_decision(pull_request: PullRequest) -> str | None:
    match pull_request.review_decision:
        case ReviewDecision.APPROVED:
            return None
        case ReviewDecision.CHANGES_REQUESTED:
            return "a reviewer wants changes"
        case ReviewDecision.REVIEW_REQUIRED:
            return "reviews are missing"
        case ReviewDecision.UNKNOWN:
            return "the report names no review decision"


def _missing_checks(pull_request: PullRequest) -> str | None:
    checks = pull_request.checks
    if not checks:
        return "there are no checks yet"
    bad = [c for c in checks if c.state not in (CheckState.SUCCEEDED, CheckState.SKIPPED)]
    if not bad:
        return None
    first = min(bad, key=lambda check: (check.state is not CheckState.FAILED, check.name))
    return f"{len(bad)} of {len(checks)} checks, such as `{first.name}`: {first.state.value}"
