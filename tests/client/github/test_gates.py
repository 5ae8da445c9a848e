"""The resolver as a worker: what it reads of GitHub, reports to the server, and answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from client.github.forge import Forge, Reply, review
from client.peers import Drop, Peer
from client.workers import working
from grpc import StatusCode

from runkon.v1 import gates_pb2, workers_pb2
from runkon_client import Actions
from runkon_client.github import Tokens, add_github_gates

CANARY = "ghp_canary"


@pytest.fixture
def actions(forge: Forge) -> Actions:
    actions = Actions()
    environment = {"GITHUB_TOKEN": CANARY, "RUNKON_GITHUB_TOKEN_BOT": "ghp_bot"}
    add_github_gates(actions, Tokens.read(environment), api_url=forge.url)
    return actions


def lease(gate_type: str, identity: str = "", **poll: Any) -> workers_pb2.TaskLease:
    return workers_pb2.TaskLease(
        task_id="t",
        token="t/0",
        kind=workers_pb2.TASK_KIND_GATE,
        action=gate_type,
        run_id="r",
        namespace="team",
        identity=identity,
        inputs={"pull_request": "o/r#7"},
        gate_poll=workers_pb2.GatePoll(
            gate_id="g", gate_name=gate_type, gate_type=gate_type, min_approvals=1, **poll
        ),
    )


def reported(reason: str = "") -> gates_pb2.ReportPullRequestResponse:
    return gates_pb2.ReportPullRequestResponse(gate=gates_pb2.Gate(id="g"), pending_reason=reason)


async def look(
    actions: Actions, leased: workers_pb2.TaskLease, *answers: Any
) -> tuple[workers_pb2.GatePending, list[gates_pb2.ReportPullRequestRequest]]:
    """What the resolver answers, and what it told the server before."""
    peer = Peer()
    peer.will_answer("ReportPullRequest", *answers)
    async with working(actions, peer=peer) as (_, work, _running):
        stream = await work.next_stream()
        stream.send(leases=[leased])
        report = await stream.next_report()
    assert report.gate_answer.WhichOneof("answer") == "pending", report
    return report.gate_answer.pending, peer.requests("ReportPullRequest")


async def test_approvals_are_reported_with_their_commits(forge: Forge, actions: Actions) -> None:
    """Author, head, the approvals that stand; the server judges, and its words are the note."""
    reviews = [review("bo", "APPROVED", "c1"), review("cy", "APPROVED"), review("di", "COMMENTED")]
    forge.pull(reviews=reviews)
    pending, (told,) = await look(actions, lease("pr_approval"), reported("1 of 2 approvals"))

    assert told.namespace == "team"
    assert told.gate_id == "g"
    assert told.pull_request == gates_pb2.PullRequest(
        head_commit="c2",
        author="ada",
        url="https://github.com/o/r/pull/7",
        approvals=[
            gates_pb2.PullRequestApproval(reviewer="bo", commit="c1"),
            gates_pb2.PullRequestApproval(reviewer="cy", commit="c2"),
        ],
    )
    assert pending.note == "o/r#7: 1 of 2 approvals"
    assert pending.delay.ToSeconds() == 30


async def test_checks_are_reported_from_both_apis(forge: Forge, actions: Actions) -> None:
    """Check runs and commit statuses of the head, all pages of them."""
    forge.page_size = 2
    forge.pull()
    runs: list[tuple[str, str, str | None]] = [
        ("build", "completed", "success"),
        ("lint", "completed", "skipped"),
        ("test", "in_progress", None),
    ]
    forge.checks(runs, [("ci/old", "failure")])
    _, (told,) = await look(actions, lease("pr_checks"), reported())

    assert [(check.name, check.state) for check in told.pull_request.checks] == [
        ("build", gates_pb2.CHECK_STATE_SUCCEEDED),
        ("lint", gates_pb2.CHECK_STATE_SKIPPED),
        ("test", gates_pb2.CHECK_STATE_PENDING),
        ("ci/old", gates_pb2.CHECK_STATE_FAILED),
    ]
    assert not told.pull_request.approvals


async def test_the_review_decision_is_asked_for_where_it_counts(
    forge: Forge, actions: Actions
) -> None:
    """The one thing that the REST API does not tell."""
    forge.pull()
    answer = {"data": {"repository": {"pullRequest": {"reviewDecision": "APPROVED"}}}}
    forge.resources["/graphql"] = answer
    leased = lease("pr_approval", approval_mode=gates_pb2.APPROVAL_MODE_REVIEW_DECISION)
    _, (told,) = await look(actions, leased, reported())

    assert told.pull_request.review_decision == gates_pb2.REVIEW_DECISION_APPROVED
    variables = json.loads(forge.asked[-1].body)["variables"]
    assert variables == {"owner": "o", "repository": "r", "number": 7}


async def test_each_identity_asks_with_its_own_token(forge: Forge, actions: Actions) -> None:
    """That of the step's `as`, else the default."""
    forge.pull()
    await look(actions, lease("pr_approval", identity="bot"), reported())
    await look(actions, lease("pr_approval"), reported())

    assert [asked.token for asked in forge.asked] == ["ghp_bot"] * 2 + [CANARY] * 2


OUTAGES: dict[str, tuple[Reply, str, int]] = {
    "a limit": (Reply(403, {"Retry-After": "17"}), "pause", 17),
    "a fault": (Reply(503), "503", 60),
    "no JSON": (Reply(200, body=b"<html>"), "no JSON", 60),
    "another shape": (Reply(200, body=b"[]"), "an object is missing", 60),
    "a refusal": (Reply(401), "401", 600),
}


@pytest.mark.parametrize(("reply", "note", "delay_s"), OUTAGES.values(), ids=OUTAGES)
async def test_an_outage_fails_no_gate(
    forge: Forge, actions: Actions, reply: Reply, note: str, delay_s: int
) -> None:
    """The answer is pending with the reason, and nothing is reported."""
    forge.next_replies.append(reply)
    pending, told = await look(actions, lease("pr_checks"))

    assert note in pending.note
    assert pending.delay.ToSeconds() == delay_s
    assert told == []


async def test_a_mistake_is_said_and_looked_at_later(forge: Forge, actions: Actions) -> None:
    """No such variable, no such identity, a pull request that was given up."""
    nameless = lease("pr_approval")
    nameless.inputs.clear()
    forge.pull(state="closed")
    notes = [
        (await look(actions, leased))[0].note
        for leased in (nameless, lease("pr_approval", identity="who"), lease("pr_approval"))
    ]

    assert notes[0].startswith("no variable pull_request")
    assert notes[1] == "there is no token for the identity who"
    assert notes[2] == "o/r#7 was closed without a merge"


async def test_a_gate_that_was_decided_meanwhile_is_no_failure(
    forge: Forge, actions: Actions
) -> None:
    """The report comes too late, and that is all."""
    forge.pull()
    late = Drop(StatusCode.FAILED_PRECONDITION, "GATE_TIMED_OUT", "the deadline is over")
    pending, told = await look(actions, lease("pr_approval"), late)

    assert pending.note == "the deadline is over"
    assert len(told) == 1


async def test_48_no_token_is_ever_said(
    forge: Forge, actions: Actions, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in an answer, not in a log of any level, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    forge.pull()
    notes = []
    for reply, _, _ in OUTAGES.values():
        forge.next_replies.append(reply)
        notes.append((await look(actions, lease("pr_checks")))[0].note)
    notes.append((await look(actions, lease("pr_approval"), reported("x")))[0].note)

    assert [asked.token for asked in forge.asked if asked.token] == [CANARY] * len(forge.asked)
    assert CANARY not in "".join(notes) + caplog.text
