"""What GitHub's answers mean: JSON → the values of the contract. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runkon_client.values import (
    CheckState,
    PullRequestApproval,
    PullRequestCheck,
    ReviewDecision,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LAST_WORDS: Final = frozenset({"APPROVED", "CHANGES_REQUESTED", "DISMISSED"})
_CONCLUSIONS: Final = {
    "success": CheckState.SUCCEEDED,
    "neutral": CheckState.SKIPPED,
    "skipped": CheckState.SKIPPED,
}
_STATUSES: Final = {"success": CheckState.SUCCEEDED, "pending": CheckState.PENDING}
_DECISIONS: Final = {
    "APPROVED": ReviewDecision.APPROVED,
    "CHANGES_REQUESTED": ReviewDecision.CHANGES_REQUESTED,
    "REVIEW_REQUIRED": ReviewDecision.REVIEW_REQUIRED,
}
_PEOPLE_BYTES_MAX: Final = 128
_CHECK_NAME_CHARS: Final = 64  # at most 256 bytes, whatever they are
_LIST_MAX: Final = 1000


class UnreadableAnswerError(Exception):
    """GitHub's answer does not have the shape that its documentation gives it."""


class PullHead(NamedTuple):
    """What a pull request itself says."""

    head_commit: str
    author: str
    url: str
    is_given_up: bool
    """Closed without a merge."""


def read_pull(answer: Any) -> PullHead:  # noqa: ANN401 - whatever JSON holds
    """A pull request.

    Raises:
        UnreadableAnswerError: it is none.
    """
    head = _object(answer).get("head")
    return PullHead(
        head_commit=_text(_object(head).get("sha")),
        author=_login(answer.get("user")),
        url=_text(answer.get("html_url")),
        is_given_up=answer.get("state") == "closed" and not answer.get("merged"),
    )


def read_approvals(reviews: Iterable[Any]) -> tuple[PullRequestApproval, ...]:
    """The approvals that stand, out of all reviews, oldest first.

    A comment takes nothing back; a later request for changes does, and so does a dismissal.
    """
    last: dict[str, Any] = {}
    for review in reviews:
        reviewer = _login(_object(review).get("user"))
        if reviewer and review.get("state") in _LAST_WORDS:
            last[reviewer] = review
    return tuple(
        PullRequestApproval(reviewer=reviewer, commit=_text(review.get("commit_id")))
        for reviewer, review in last.items()
        if review["state"] == "APPROVED" and review.get("commit_id")
    )[:_LIST_MAX]


def read_checks(runs: Iterable[Any], statuses: Iterable[Any]) -> tuple[PullRequestCheck, ...]:
    """Check runs and commit statuses as one list; if it is too long, what is not well stays."""
    checks = [_check_run(_object(run)) for run in runs]
    checks += [
        PullRequestCheck(
            name=_name(_object(status).get("context")),
            state=_STATUSES.get(str(status.get("state")), CheckState.FAILED),
        )
        for status in statuses
    ]
    if len(checks) > _LIST_MAX:
        well = (CheckState.SUCCEEDED, CheckState.SKIPPED)
        checks.sort(key=lambda check: check.state in well)
    return tuple(checks[:_LIST_MAX])


def read_decision(answer: Any) -> ReviewDecision:  # noqa: ANN401 - whatever JSON holds
    """The review decision out of an answer of the GraphQL API.

    Raises:
        UnreadableAnswerError: the query failed.
    """
    found = answer
    for key in ("data", "repository", "pullRequest"):
        found = _object(found).get(key)
    return _DECISIONS.get(str(_object(found).get("reviewDecision")), ReviewDecision.UNKNOWN)


def read_list(answer: Any, key: str = "") -> Sequence[Any]:  # noqa: ANN401 - whatever JSON holds
    """The list that an answer is, or holds under a key.

    Raises:
        UnreadableAnswerError: there is none.
    """
    found = _object(answer).get(key) if key else answer
    if not isinstance(found, list):
        raise UnreadableAnswerError("a list is missing")
    return found


def _check_run(run: dict[str, Any]) -> PullRequestCheck:
    state = CheckState.PENDING
    if run.get("status") == "completed":
        state = _CONCLUSIONS.get(str(run.get("conclusion")), CheckState.FAILED)
    return PullRequestCheck(name=_name(run.get("name")), state=state)


def _object(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, dict):
        raise UnreadableAnswerError("an object is missing")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, str) or not value:
        raise UnreadableAnswerError("a text is missing")
    return value


def _name(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    return _text(value)[:_CHECK_NAME_CHARS]


def _login(user: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Empty for an account that is gone."""
    login = user.get("login") if isinstance(user, dict) else None
    if not isinstance(login, str) or len(login.encode()) > _PEOPLE_BYTES_MAX:
        return ""
    return login
