"""The resolver of `pr_approval` and `pr_checks`: looks at GitHub, tells the server what it saw."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_client.errors import PreconditionError
from runkon_client.github.reading import (
    UnreadableAnswerError,
    read_approvals,
    read_checks,
    read_decision,
    read_list,
    read_pull,
)
from runkon_client.github.references import (
    NoPullRequestError,
    PullRequestReference,
    find_reference,
)
from runkon_client.github.rest import GitHub, GitHubError, RateLimitedError, RefusedError
from runkon_client.github.tokens import Token, Tokens, UnknownIdentityError
from runkon_client.values import ApprovalMode, PullRequest
from runkon_client.worker.gates import Pending

if TYPE_CHECKING:
    from runkon_client.worker.actions import Actions
    from runkon_client.worker.gates import GateAnswer, GateTask

PR_APPROVAL: Final = "pr_approval"
PR_CHECKS: Final = "pr_checks"
_log: Final = logging.getLogger("runkon_client.github")
_LOOK_EVERY: Final = timedelta(seconds=30)
_LOOK_AGAIN_AFTER_FAULT: Final = timedelta(minutes=1)
_LOOK_AGAIN_AFTER_MISTAKE: Final = timedelta(minutes=10)  # somebody has to put something right
_DECISION_QUERY: Final = """
query($owner: String!, $repository: String!, $number: Int!) {
  repository(owner: $owner, name: $repository) {
    pullRequest(number: $number) { reviewDecision }
  }
}
"""


class PullRequestGates:
    """Answers looks at the gates of pull requests.

    No look fails: a gate waits through an outage, and its deadline or a person ends the waiting.
    """

    def __init__(self, github: GitHub, tokens: Tokens, *, every: timedelta = _LOOK_EVERY) -> None:
        self._github = github
        self._tokens = tokens
        self._every = every

    async def resolve(self, task: GateTask) -> GateAnswer:
        """Look, report, and say what is missing."""
        try:
            reference = find_reference(task.inputs, self._github.host)
            seen = await self.look(
                reference, self._tokens.of(task.identity), task.gate_type, task.approval_mode
            )
        except RateLimitedError as limited:
            return Pending(note=str(limited), delay=timedelta(seconds=limited.delay_s))
        except (NoPullRequestError, UnknownIdentityError, RefusedError) as mistake:
            _log.warning("gate %s of run %s: %s", task.gate_name, task.run_id, mistake)
            return Pending(note=str(mistake), delay=_LOOK_AGAIN_AFTER_MISTAKE)
        except (GitHubError, UnreadableAnswerError) as fault:
            _log.info("gate %s of run %s: %s", task.gate_name, task.run_id, fault)
            return Pending(note=str(fault), delay=_LOOK_AGAIN_AFTER_FAULT)
        try:
            reported = await task.report_pull_request(seen)
        except PreconditionError as decided:
            # Decided meanwhile, or out of time: whatever is answered now is not used.
            return Pending(note=decided.message, delay=self._every)
        return Pending(
            note=f"{reference}: {reported.pending_reason or 'nothing is missing'}",
            delay=self._every,
        )

    async def look(
        self,
        reference: PullRequestReference,
        token: Token | None,
        gate_type: str,
        mode: ApprovalMode = ApprovalMode.MIN_APPROVALS,
    ) -> PullRequest:
        """How a pull request stands, as far as a gate of this type asks.

        Raises:
            GitHubError: GitHub does not say.
            UnreadableAnswerError: what it says makes no sense.
            NoPullRequestError: the pull request was given up.
        """
        repository = f"repos/{reference.owner}/{reference.repository}"
        pull_path = f"{repository}/pulls/{reference.number}"
        pull = read_pull(await self._github.get(pull_path, token))
        if pull.is_given_up:
            raise NoPullRequestError(f"{reference} was closed without a merge")
        seen = PullRequest(head_commit=pull.head_commit, author=pull.author, url=pull.url)
        if gate_type == PR_CHECKS:
            commit = f"{repository}/commits/{pull.head_commit}"
            runs = await self._list(f"{commit}/check-runs", token, "check_runs")
            statuses = await self._list(f"{commit}/status", token, "statuses")
            return replace(seen, checks=read_checks(runs, statuses))
        if mode is ApprovalMode.REVIEW_DECISION:
            answer = await self._github.query(_DECISION_QUERY, reference._asdict(), token)
            return replace(seen, review_decision=read_decision(answer))
        reviews = await self._list(f"{pull_path}/reviews", token)
        return replace(seen, approvals=read_approvals(reviews))

    async def _list(self, path: str, token: Token | None, key: str = "") -> list[object]:
        return [
            item async for page in self._github.pages(path, token) for item in read_list(page, key)
        ]


def add_github_gates(actions: Actions, tokens: Tokens, *, api_url: str | None = None) -> None:
    """Look after the gates of pull requests on one GitHub.

    Args:
        actions: those of the worker; it closes the connections at its end.
        tokens: whom to ask as.
        api_url: of an enterprise's own GitHub, such as `https://github.example.com/api/v3`.

    Raises:
        ValueError: there is something that looks after them already, or the URL is not https.
    """
    github = GitHub(api_url)
    gates = PullRequestGates(github, tokens)
    actions.gate(PR_APPROVAL)(gates.resolve)
    actions.gate(PR_CHECKS)(gates.resolve)
    actions.at_end(github.close)
