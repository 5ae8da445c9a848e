"""When a pull request satisfies a gate."""

from __future__ import annotations

import pytest

from runkon_server.core.pull_requests import (
    Approval,
    Check,
    CheckState,
    PullRequest,
    ReviewDecision,
    judge,
)

HEAD = "c2"


def approvals(*pairs: tuple[str, str], needed: int = 2) -> str | None:
    """What a gate that counts approvals misses."""
    found = tuple(Approval(reviewer, commit) for reviewer, commit in pairs)
    return judge(
        gate_type="pr_approval",
        min_approvals=needed,
        approval_mode="min_approvals",
        pull_request=PullRequest(head_commit=HEAD, author="ann", approvals=found),
    )


def test_distinct_people_other_than_the_author_have_to_approve() -> None:
    """The author's own does not count, and nobody counts twice."""
    assert approvals(("bob", HEAD), ("cid", HEAD)) is None
    assert approvals(("bob", HEAD), ("bob", HEAD)) == "1 of 2 approvals of c2"
    assert approvals(("bob", HEAD), ("ann", HEAD)) == "1 of 2 approvals of c2"
    assert approvals() == "0 of 2 approvals of c2"


def test_approvals_of_older_commits_do_not_count() -> None:
    """A push takes them back."""
    assert approvals(("bob", "c1"), ("cid", HEAD)) == "1 of 2 approvals of c2"


@pytest.mark.parametrize("decision", list(ReviewDecision))
def test_review_decision_of_the_forge_has_to_be_approval(decision: ReviewDecision) -> None:
    """In that mode; the number of approvals means nothing then."""
    missing = judge(
        gate_type="pr_approval",
        min_approvals=5,
        approval_mode="review_decision",
        pull_request=PullRequest(head_commit=HEAD, review_decision=decision),
    )

    assert (missing is None) == (decision is ReviewDecision.APPROVED)


@pytest.mark.parametrize(
    ("states", "missing"),
    [
        ([], "there are no checks yet"),
        ([CheckState.SUCCEEDED, CheckState.SKIPPED], None),
        (
            [CheckState.PENDING, CheckState.SUCCEEDED, CheckState.FAILED],
            "2 of 3 checks, such as `n2`: failed",
        ),
        ([CheckState.PENDING], "1 of 1 checks, such as `n0`: pending"),
    ],
)
def test_every_check_has_to_succeed_or_be_skipped(
    states: list[CheckState], missing: str | None
) -> None:
    """And there must be at least one, since none are there right after a push."""
    checks = tuple(Check(f"n{number}", state) for number, state in enumerate(states))
    found = judge(
        gate_type="pr_checks",
        min_approvals=1,
        approval_mode="min_approvals",
        pull_request=PullRequest(head_commit=HEAD, checks=checks),
    )

    assert found == missing
