"""ReportPullRequest on a real engine: what satisfies a gate, what is missing, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from runkon.v1 import gates_pb2, runs_pb2, types_pb2
from support.live_api import refusal
from support.live_work import ZOE, ended, run_of, start, waiting
from support.rows import ulid

if TYPE_CHECKING:
    from support.live_api import LiveApi

APPROVAL = "workflow w { gate pr_approval { name = approval min_approvals = 2 } }"
DECISION = "workflow w { gate pr_approval { name = approval mode = review_decision } }"
CHECKS = "workflow w { gate pr_checks { name = checks } }"
HUMAN = "workflow w { gate human_review { name = review } }"
APPROVED, PENDING = gates_pb2.GATE_STATE_APPROVED, gates_pb2.GATE_STATE_PENDING


def approvals(*words: str) -> list[gates_pb2.PullRequestApproval]:
    """Of `reviewer@commit`."""
    pairs = [word.split("@") for word in words]
    return [gates_pb2.PullRequestApproval(reviewer=who, commit=what) for who, what in pairs]


def checks(*states: gates_pb2.CheckState.ValueType) -> list[gates_pb2.PullRequestCheck]:
    return [
        gates_pb2.PullRequestCheck(name=f"check-{number}", state=state)
        for number, state in enumerate(states)
    ]


async def report(
    api: LiveApi, gate_id: str, request_id: str = "", **seen: Any
) -> gates_pb2.ReportPullRequestResponse:
    return await api.gates.ReportPullRequest(
        gates_pb2.ReportPullRequestRequest(
            gate_id=gate_id,
            request_id=request_id,
            pull_request=gates_pb2.PullRequest(head_commit="head", **seen),
        ),
        metadata=ZOE,
    )


async def gate_of(api: LiveApi, source: str, **fields: Any) -> tuple[str, str]:
    """A run that stands at a gate, and the gate."""
    run = await waiting(api, await start(api, source, **fields))
    return run.id, run.blocked_on.gate_id


async def test_a_gate_of_approvals_says_how_many_it_needs(api: LiveApi) -> None:
    run_id, gate_id = await gate_of(api, APPROVAL)
    run = await run_of(api, run_id)
    gate = (await api.gates.GetGate(gates_pb2.GetGateRequest(gate_id=gate_id))).gate

    assert run.blocked_on.pr_approval.gate_name == "approval"
    assert run.blocked_on.pr_approval.approvals_needed == 2
    assert (gate.min_approvals, gate.type) == (2, "pr_approval")
    assert gate.approval_mode == gates_pb2.APPROVAL_MODE_MIN_APPROVALS


async def test_approvals_of_the_head_by_two_people_approve_a_gate(api: LiveApi) -> None:
    """In the name of who reports; the run goes on."""
    run_id, gate_id = await gate_of(api, APPROVAL)
    answer = await report(
        api, gate_id, approvals=approvals("bob@head", "eve@head"), url="https://forge.example/7"
    )
    run = await ended(api, run_id)

    assert (answer.gate.state, answer.gate.resolved_by) == (APPROVED, "zoe")
    assert (answer.pending_reason, answer.replayed) == ("", False)
    assert answer.gate.feedback == "https://forge.example/7"
    assert run.status == types_pb2.RUN_STATUS_COMPLETED


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"approvals": approvals("bob@head")},
        {"approvals": approvals("bob@head", "bob@head")},
        {"approvals": approvals("bob@head", "ada@head"), "author": "ada"},
        {"approvals": approvals("bob@head", "eve@old")},
        {"review_decision": gates_pb2.REVIEW_DECISION_APPROVED},
    ],
    ids=["none", "one", "twice one", "the author", "another commit", "a decision"],
)
async def test_what_does_not_satisfy_a_gate_leaves_it_pending(
    api: LiveApi, seen: dict[str, Any]
) -> None:
    """With one sentence on what is missing; a later report may satisfy it."""
    _, gate_id = await gate_of(api, APPROVAL)
    answer = await report(api, gate_id, **seen)
    later = await report(api, gate_id, approvals=approvals("bob@head", "eve@head"))

    assert answer.gate.state == PENDING
    assert "of 2 approvals" in answer.pending_reason
    assert later.gate.state == APPROVED


async def test_a_review_decision_counts_where_the_gate_asks_for_it(api: LiveApi) -> None:
    _, gate_id = await gate_of(api, DECISION)
    missing = await report(
        api,
        gate_id,
        approvals=approvals("bob@head", "eve@head"),
        review_decision=gates_pb2.REVIEW_DECISION_CHANGES_REQUESTED,
    )
    decided = await report(api, gate_id, review_decision=gates_pb2.REVIEW_DECISION_APPROVED)

    assert (missing.gate.state, decided.gate.state) == (PENDING, APPROVED)
    assert missing.pending_reason
    assert decided.gate.approval_mode == gates_pb2.APPROVAL_MODE_REVIEW_DECISION


@pytest.mark.parametrize(
    ("states", "is_enough"),
    [
        ([], False),
        ([gates_pb2.CHECK_STATE_SUCCEEDED], True),
        ([gates_pb2.CHECK_STATE_SUCCEEDED, gates_pb2.CHECK_STATE_SKIPPED], True),
        ([gates_pb2.CHECK_STATE_SUCCEEDED, gates_pb2.CHECK_STATE_PENDING], False),
        ([gates_pb2.CHECK_STATE_SUCCEEDED, gates_pb2.CHECK_STATE_FAILED], False),
    ],
)
async def test_every_check_has_to_succeed_or_be_skipped(
    api: LiveApi, states: list[gates_pb2.CheckState.ValueType], *, is_enough: bool
) -> None:
    """And there has to be one."""
    run_id, gate_id = await gate_of(api, CHECKS)
    blocked_on = (await run_of(api, run_id)).blocked_on
    answer = await report(api, gate_id, checks=checks(*states))

    assert blocked_on.pr_checks.gate_name == "checks"
    assert (answer.gate.state == APPROVED, bool(answer.pending_reason)) == (
        is_enough,
        not is_enough,
    )


async def test_a_gate_may_be_named_by_run_and_name_or_key_and_name(api: LiveApi) -> None:
    run_id, _ = await gate_of(api, CHECKS, key="order-1")
    seen = gates_pb2.PullRequest(head_commit="head", checks=checks(gates_pb2.CHECK_STATE_PENDING))
    for target in (
        gates_pb2.RunGate(run_id=run_id, gate_name="checks"),
        gates_pb2.RunGate(key="order-1", gate_name="checks"),
    ):
        request = gates_pb2.ReportPullRequestRequest(run_gate=target, pull_request=seen)
        assert (await api.gates.ReportPullRequest(request)).gate.state == PENDING


async def test_a_report_for_an_approved_gate_changes_nothing(api: LiveApi) -> None:
    run_id, gate_id = await gate_of(api, CHECKS)
    await report(api, gate_id, checks=checks(gates_pb2.CHECK_STATE_SUCCEEDED))
    await ended(api, run_id)
    again = await report(api, gate_id, checks=checks(gates_pb2.CHECK_STATE_FAILED))

    assert (again.gate.state, again.pending_reason, again.replayed) == (APPROVED, "", True)


async def test_the_same_report_again_is_answered_the_same(api: LiveApi) -> None:
    """Under its request id; with another wish under that id it is refused."""
    _, gate_id = await gate_of(api, APPROVAL)
    first = await report(api, gate_id, "seen", approvals=approvals("bob@head"))
    again = await report(api, gate_id, "seen", approvals=approvals("bob@head"))
    other = await refusal(report(api, gate_id, "seen"))

    assert (first.replayed, again.replayed) == (False, True)
    assert first.pending_reason == again.pending_reason
    assert (other.code, other.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_gate_for_people_takes_no_reports(api: LiveApi) -> None:
    _, gate_id = await gate_of(api, HUMAN)
    refused = await refusal(report(api, gate_id))

    assert (refused.code, refused.reason) == (
        StatusCode.FAILED_PRECONDITION,
        "GATE_TYPE_MISMATCH",
    )
    assert refused.metadata["gate_type"] == "human_review"


async def test_a_gate_that_somebody_rejected_is_not_approved(api: LiveApi) -> None:
    """A person may answer such a gate as well; metadata names who did."""
    run_id, gate_id = await gate_of(api, CHECKS)
    reject = gates_pb2.ResolveGateRequest(gate_id=gate_id, decision=gates_pb2.GATE_DECISION_REJECT)
    await api.gates.ResolveGate(reject, metadata=ZOE)
    await ended(api, run_id)
    refused = await refusal(report(api, gate_id, checks=checks(gates_pb2.CHECK_STATE_SUCCEEDED)))

    assert (refused.code, refused.reason) == (
        StatusCode.FAILED_PRECONDITION,
        "GATE_ALREADY_RESOLVED",
    )
    assert refused.metadata["resolved_by"] == "zoe"


async def test_a_gate_of_a_cancelled_run_is_closed(api: LiveApi) -> None:
    run_id, gate_id = await gate_of(api, CHECKS)
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run_id))
    await ended(api, run_id)
    refused = await refusal(report(api, gate_id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "GATE_CLOSED")


async def test_a_gate_that_timed_out_is_over(api: LiveApi) -> None:
    source = CHECKS.replace("checks }", 'checks timeout = "1s" }')
    run_id, gate_id = await gate_of(api, source)
    await ended(api, run_id)
    refused = await refusal(report(api, gate_id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "GATE_TIMED_OUT")


async def test_what_is_not_there_takes_no_reports(api: LiveApi) -> None:
    """No such gate, no such run, none of that name, and none of that namespace."""
    run_id, gate_id = await gate_of(api, CHECKS)
    seen = gates_pb2.PullRequest(head_commit="head")
    wanted: list[tuple[dict[str, Any], str]] = [
        ({"gate_id": f"{run_id}/b.0042/e1/0"}, "GATE_NOT_FOUND"),
        ({"gate_id": gate_id, "namespace": "other"}, "RUN_NOT_FOUND"),
        ({"run_gate": {"run_id": ulid(9), "gate_name": "checks"}}, "RUN_NOT_FOUND"),
        ({"run_gate": {"run_id": run_id, "gate_name": "none"}}, "GATE_NOT_FOUND"),
        ({"run_gate": {"key": "none", "gate_name": "checks"}}, "RUN_NOT_FOUND"),
    ]
    for fields, reason in wanted:
        request = gates_pb2.ReportPullRequestRequest(pull_request=seen, **fields)
        refused = await refusal(api.gates.ReportPullRequest(request))
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, reason), fields
