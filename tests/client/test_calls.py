"""Unary calls: the same on both stacks, repeated when that is safe, failing as plain errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from client.operations import DONE, OPERATIONS, PICTURES, RUN
from client.peers import RUN_ID, Drop, Peer, serve
from google.rpc import error_details_pb2

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, types_pb2, workflows_pb2
from runkon_client import (
    AlreadyExistsError,
    Client,
    Code,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
    RetryPolicy,
    RunkonClientError,
    RunSpec,
    ServerFaultError,
    SyncClient,
    UnavailableError,
    Violation,
    WaitTimeoutError,
)
from runkon_client.calls.runs import AWAIT_S
from runkon_client.channel import resolve_endpoint
from runkon_client.errors import error_from_rpc
from runkon_client.sizes import MESSAGE_BYTES_MAX, refuse_unsendable
from runkon_client.values import RunStatus
from runkon_server.api.server import MESSAGE_BYTES

if TYPE_CHECKING:
    from google.protobuf.message import Message

SHORT = RetryPolicy(window_s=60, delay_first_s=0.01, delay_max_s=0.05)

both_stacks = pytest.mark.parametrize("stack", ["async", "sync"])


async def drive(
    stack: str, peer: Peer, operation: Callable[[Any], Any], *, retry: RetryPolicy = SHORT
) -> Any:
    """What the operation comes to on one stack; iterators are read to their end."""
    options: dict[str, Any] = {"namespace": "team", "principal": "ada", "retry": retry}
    async with serve(peer) as address, asyncio.timeout(60):
        if stack == "sync":
            return await asyncio.to_thread(_drive_sync, address, options, operation)
        async with Client(address, **options) as client:
            result = operation(client)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result if inspect.isawaitable(result) else result


def _drive_sync(address: str, options: dict[str, Any], operation: Callable[[Any], Any]) -> Any:
    with SyncClient(address, **options) as client:
        result = operation(client)
        return list(result) if isinstance(result, Iterator) else result


def plain(result: Any) -> Any:
    """A result without what differs between two calls on purpose."""
    if isinstance(result, list):
        return [plain(item) for item in result]
    if isinstance(result, RunkonClientError):
        return str(result)
    return getattr(result, "run", getattr(result, "gate", result))


@pytest.mark.parametrize(("answers", "operation"), OPERATIONS.values(), ids=OPERATIONS)
async def test_both_stacks_do_the_same(
    answers: dict[str, list[Message]], operation: Callable[[Any], Any]
) -> None:
    """The same requests in the same order, all with a deadline, make the same values."""
    peers = {"async": Peer(), "sync": Peer()}
    results = {}
    for stack, peer in peers.items():
        for method, messages in answers.items():
            peer.will_answer(method, *messages)
        results[stack] = plain(await drive(stack, peer, operation))

    assert results["async"] == results["sync"]
    assert peers["async"].calls == peers["sync"].calls
    assert [method for method, _ in peers["async"].calls] == [
        method for method, messages in answers.items() for _ in messages
    ]
    for _, request in peers["async"].calls:
        assert request.namespace == "team"
    assert all(0 < left <= 60 for peer in peers.values() for left in peer.deadlines_s)


HUGE = "workflow w { call a }\n" + "// no message to a server holds this\n" * 150_000
UNSENDABLE: dict[str, Callable[[Any], Any]] = {
    "start_run": lambda client: client.start_run(source=HUGE),
    "put_workflow": lambda client: client.put_workflow(HUGE),
    "validate_workflow": lambda client: client.validate_workflow(HUGE),
    "format_workflow": lambda client: client.format_workflow(HUGE),
    "graph_workflow": lambda client: client.graph_workflow(source=HUGE),
}


@both_stacks
@pytest.mark.parametrize("operation", UNSENDABLE.values(), ids=UNSENDABLE)
async def test_a_source_beyond_any_message_is_refused_in_the_words_of_the_language(
    stack: str, operation: Callable[[Any], Any]
) -> None:
    """Without this, RESOURCE_EXHAUSTED from gRPC, of a message that no caller knows of."""
    peer = Peer()
    with pytest.raises(InvalidArgumentError, match=r"WF402: .* larger than 256 KiB") as refused:
        await drive(stack, peer, operation)

    assert refused.value.reason == "DSL_LIMIT"
    assert refused.value.violations[0].field == "source:1:1"
    assert not peer.calls


@both_stacks
async def test_any_other_request_beyond_a_message_is_refused_with_the_limit(stack: str) -> None:
    """Many sources that are small enough each, and inputs."""
    peer = Peer()
    spec = RunSpec(source="x" * 200_000)
    for operation in (
        lambda client: client.start_runs([spec] * 30),
        lambda client: client.start_run("deploy", inputs={"text": "x" * MESSAGE_BYTES_MAX}),
    ):
        with pytest.raises(ResourceExhaustedError, match=r"at most 4,194,304 \(4 MiB\)"):
            await drive(stack, peer, operation)
    assert not peer.calls
    assert MESSAGE_BYTES_MAX == MESSAGE_BYTES


def test_a_request_that_just_fits_is_not_refused() -> None:
    """The tag of the field and its length have five bytes; one character more is too many."""
    fits = workflows_pb2.GetWorkflowRequest(name="x" * (MESSAGE_BYTES_MAX - 5))

    refuse_unsendable(fits)
    fits.name += "x"
    with pytest.raises(ResourceExhaustedError):
        refuse_unsendable(fits)


async def test_a_start_says_what_it_was_told() -> None:
    """Every option arrives in its field."""
    peer = Peer()
    answers, operation = OPERATIONS["start_run"]
    peer.will_answer("StartRun", *answers["StartRun"])

    handle = await drive("async", peer, operation)

    (request,) = peer.requests("StartRun")
    expected = runs_pb2.StartRunRequest(
        namespace="team",
        request_id="mine",
        workflow="deploy",
        inputs={"ticket": "T-1"},
        key="order-1",
        conflict_policy=runs_pb2.CONFLICT_POLICY_USE_EXISTING,
        labels={"team": "core"},
        priority=5,
        dry_run=True,
        trigger="nightly",
        config=types_pb2.RunConfig(fail_fast=False),
    )
    expected.start_delay.FromSeconds(90)
    assert request == expected
    assert (handle.id, handle.started, handle.replayed) == (RUN_ID, True, False)
    assert handle.run.status is RunStatus.RUNNING
    assert peer.metadata[0]["runkon-principal"] == "ada"


@pytest.mark.parametrize(
    ("operation", "mode", "step"),
    [
        ("resume_run", events_pb2.RESUME_MODE_NORMAL, ""),
        ("resume_run from a step", events_pb2.RESUME_MODE_FROM_STEP, "s1"),
        ("resume_run from the start", events_pb2.RESUME_MODE_RESTART, ""),
    ],
)
async def test_a_resume_says_what_to_repeat(
    operation: str, mode: events_pb2.ResumeMode.ValueType, step: str
) -> None:
    peer = Peer()
    answers, resume = OPERATIONS[operation]
    peer.will_answer("ResumeRun", *answers["ResumeRun"])

    run = await drive("async", peer, resume)

    assert peer.requests("ResumeRun") == [
        runs_pb2.ResumeRunRequest(
            namespace="team", request_id="again", run_id=RUN_ID, mode=mode, from_step_id=step
        )
    ]
    assert run.status is RunStatus.RUNNING


@both_stacks
async def test_a_resume_repeats_a_part_or_everything(stack: str) -> None:
    with pytest.raises(ValueError, match="either"):
        await drive(
            stack, Peer(), lambda client: client.run(RUN_ID).resume(from_step="s", restart=True)
        )


async def test_items_are_asked_for_by_step_and_state() -> None:
    """Page after page, the filter on each."""
    peer = Peer()
    answers, operation = OPERATIONS["items"]
    peer.will_answer("ListFanOutItems", *answers["ListFanOutItems"])

    items = await drive("async", peer, operation)

    first, second = peer.requests("ListFanOutItems")
    assert [item.id for item in items] == ["s1/0", "s1/1"]
    assert (first.step_id, first.page_token, second.page_token) == ("s1", "", "more")
    assert first.status == second.status == types_pb2.FAN_OUT_ITEM_STATUS_FAILED


async def test_a_report_of_a_pull_request_is_told_whole() -> None:
    """Every part arrives in its field; the answer says what is missing."""
    peer = Peer()
    answers, operation = OPERATIONS["report_pull_request"]
    peer.will_answer("ReportPullRequest", *answers["ReportPullRequest"])

    reported = await drive("async", peer, operation)

    assert peer.requests("ReportPullRequest") == [
        gates_pb2.ReportPullRequestRequest(
            namespace="team",
            request_id="seen",
            gate_id="g1",
            pull_request=gates_pb2.PullRequest(
                head_commit="c0ffee",
                author="ada",
                approvals=[gates_pb2.PullRequestApproval(reviewer="zoe", commit="c0ffee")],
                review_decision=gates_pb2.REVIEW_DECISION_APPROVED,
                checks=[
                    gates_pb2.PullRequestCheck(name="lint", state=gates_pb2.CHECK_STATE_SKIPPED)
                ],
                url="https://forge.example/7",
            ),
        )
    ]
    assert (reported.gate.id, reported.pending_reason) == ("g1", "1 of 2 approvals")


@pytest.mark.parametrize("subject", PICTURES)
async def test_a_picture_is_asked_for_by_its_subject(subject: str) -> None:
    """One field of three is set; the format is that of the call."""
    peer = Peer()
    peer.will_answer("GraphWorkflow", workflows_pb2.GraphWorkflowResponse(graph="picture"))

    assert await drive("async", peer, PICTURES[subject]) == "picture"

    (request,) = peer.requests("GraphWorkflow")
    formats = {
        "workflow": workflows_pb2.GRAPH_FORMAT_MERMAID,
        "source": workflows_pb2.GRAPH_FORMAT_SVG,
        "run_id": workflows_pb2.GRAPH_FORMAT_DOT,
    }
    assert (request.WhichOneof("subject"), request.format) == (subject, formats[subject])


@both_stacks
@pytest.mark.parametrize("subjects", [{}, {"workflow": "w", "run_id": RUN_ID}], ids=["none", "two"])
async def test_a_picture_has_one_subject(stack: str, subjects: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of"):
        await drive(stack, Peer(), lambda client: client.graph_workflow(**subjects))


@both_stacks
async def test_a_retry_repeats_the_request_id(stack: str) -> None:
    """A mutation whose outcome is unknown is made again under the id minted for it."""
    peer = Peer()
    peer.will_answer(
        "StartRun",
        Drop(reason="OUTCOME_UNKNOWN"),
        Drop(grpc.StatusCode.DEADLINE_EXCEEDED),
        Drop(grpc.StatusCode.ABORTED, reason="CONTENTION", retry_after_s=0.01),
        runs_pb2.StartRunResponse(run=RUN, started=True, replayed=True),
    )

    handle = await drive(stack, peer, lambda client: client.start_run("deploy"))

    ids = {request.request_id for request in peer.requests("StartRun")}
    assert len(peer.calls) == 4
    assert len(ids) == 1
    assert ids != {""}
    assert handle.replayed


async def test_two_starts_have_two_request_ids() -> None:
    """Only a repetition shares one."""
    peer = Peer()
    peer.will_answer("StartRun", *[runs_pb2.StartRunResponse(run=RUN)] * 2)

    async def start_twice(client: Client) -> None:
        await client.start_run("deploy")
        await client.start_run("deploy")

    await drive("async", peer, start_twice)

    first, second = peer.requests("StartRun")
    assert first.request_id != second.request_id


@both_stacks
async def test_retries_end_with_their_window(stack: str) -> None:
    """What failed last is raised; a window of zero makes one attempt."""
    peer = Peer()
    peer.will_answer("GetRun", *[Drop(reason="DATABASE_AWAY")] * 2)

    with pytest.raises(UnavailableError) as caught:
        await drive(
            stack, peer, lambda client: client.get_run(RUN_ID), retry=RetryPolicy(window_s=0)
        )

    assert caught.value.reason == "DATABASE_AWAY"
    assert len(peer.calls) == 1


@both_stacks
async def test_a_server_that_is_not_there_is_unavailable(stack: str) -> None:
    """No gRPC exception leaves the client, whatever goes wrong."""
    async with serve(Peer()) as address:
        pass
    client_class: Any = Client if stack == "async" else SyncClient
    client = client_class(address, retry=RetryPolicy(window_s=0.05, delay_first_s=0.01))

    is_async = stack == "async"
    asking = client.get_run(RUN_ID) if is_async else asyncio.to_thread(client.get_run, RUN_ID)
    with pytest.raises(UnavailableError):
        await asking

    closing = client.close()
    if stack == "async":
        await closing


BAD_FIELD = error_details_pb2.BadRequest(
    field_violations=[
        error_details_pb2.BadRequest.FieldViolation(field="source:2:3", description="expected }")
    ]
)
BAD_STATE = error_details_pb2.PreconditionFailure(
    violations=[
        error_details_pb2.PreconditionFailure.Violation(
            type="STATE", subject=RUN_ID, description="completed"
        )
    ]
)
REFUSALS: dict[str, tuple[Drop, type[RunkonClientError], tuple[Violation, ...]]] = {
    "bad field": (
        Drop(grpc.StatusCode.INVALID_ARGUMENT, reason="DSL_SYNTAX", details=[BAD_FIELD]),
        InvalidArgumentError,
        (Violation("source:2:3", "expected }"),),
    ),
    "wrong state": (
        Drop(grpc.StatusCode.FAILED_PRECONDITION, reason="RUN_STATE", details=[BAD_STATE]),
        PreconditionError,
        (Violation(RUN_ID, "completed"),),
    ),
    "key in use": (
        Drop(grpc.StatusCode.ALREADY_EXISTS, reason="RUN_KEY_IN_USE", metadata={"run_id": "01J"}),
        AlreadyExistsError,
        (),
    ),
    "not found": (Drop(grpc.StatusCode.NOT_FOUND, reason="RUN_NOT_FOUND"), NotFoundError, ()),
    "not allowed": (
        Drop(grpc.StatusCode.PERMISSION_DENIED, reason="ROLE_REQUIRED"),
        PermissionDeniedError,
        (),
    ),
}


@both_stacks
@pytest.mark.parametrize(("drop", "kind", "violations"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_a_typed_error(
    stack: str, drop: Drop, kind: type[RunkonClientError], violations: tuple[Violation, ...]
) -> None:
    """Class by code; reason, metadata and violations out of the status details; no retry."""
    peer = Peer()
    peer.will_answer("GetRun", drop)

    with pytest.raises(RunkonClientError) as caught:
        await drive(stack, peer, lambda client: client.get_run(RUN_ID))

    assert type(caught.value) is kind
    assert caught.value.code == Code(drop.code.name)
    assert caught.value.reason == drop.reason
    assert caught.value.metadata == drop.metadata
    assert caught.value.violations == violations
    assert str(caught.value) == f"gone [{drop.code.name} {drop.reason}]"


async def test_retry_info_of_a_refusal_is_kept() -> None:
    """For callers that wait themselves."""
    peer = Peer()
    peer.will_answer(
        "GetRun",
        Drop(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA", retry_after_s=1.5),
    )

    with pytest.raises(RunkonClientError) as caught:
        await drive("async", peer, lambda client: client.get_run(RUN_ID))

    assert caught.value.retry_after == timedelta(seconds=1.5)


class Garbage:
    """Serialises to what is no message."""

    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff"


@both_stacks
async def test_an_answer_that_cannot_be_read_is_an_error_of_ours(stack: str) -> None:
    """Such as that of something else on the port."""
    peer = Peer()
    peer.will_answer("GetRun", Garbage())  # type: ignore[arg-type] # is no message, on purpose

    with pytest.raises(ServerFaultError):
        await drive(stack, peer, lambda client: client.get_run(RUN_ID))


def test_details_that_cannot_be_read_leave_code_and_message() -> None:
    """A proxy may put anything under the key of the details."""
    error = error_from_rpc(
        grpc.aio.AioRpcError(
            grpc.StatusCode.NOT_FOUND,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff")),
            details="nothing here",
        )
    )

    assert isinstance(error, NotFoundError)
    assert (error.message, error.reason) == ("nothing here", "")


@both_stacks
async def test_wait_ends_with_the_run_only(stack: str) -> None:
    """Answers without `done`, early or at a drain, and errors of a moment are waited out."""
    peer = Peer()
    peer.will_answer(
        "AwaitRun",
        runs_pb2.AwaitRunResponse(run=RUN),
        Drop(reason="DRAINING"),
        runs_pb2.AwaitRunResponse(run=RUN),
        runs_pb2.AwaitRunResponse(run=DONE, done=True),
    )

    run = await drive(
        stack, peer, lambda client: client.run(RUN_ID).wait(), retry=RetryPolicy(window_s=0)
    )

    assert run.status is RunStatus.COMPLETED
    waits = [request.timeout.ToTimedelta() for request in peer.requests("AwaitRun")]
    assert waits == [timedelta(seconds=AWAIT_S)] * 4


@both_stacks
async def test_wait_gives_up_when_its_time_is_over(stack: str) -> None:
    """The last call waits for what is left; then it is a `TimeoutError` as well."""
    peer = Peer()
    peer.will_answer("AwaitRun", *[runs_pb2.AwaitRunResponse(run=RUN)] * 50)

    with pytest.raises(WaitTimeoutError) as caught:
        await drive(stack, peer, lambda client: client.run(RUN_ID).wait(timedelta(seconds=2)))

    assert isinstance(caught.value, TimeoutError)
    first, *_, last = (request.timeout for request in peer.requests("AwaitRun"))
    assert last.ToMilliseconds() < first.ToMilliseconds() <= 2_000


@pytest.mark.parametrize(
    "operation",
    [
        lambda client: client.start_run(),
        lambda client: client.start_run("deploy", source="workflow deploy {}"),
        lambda client: client.get_run(),
        lambda client: client.get_run("id", key="key"),
    ],
)
async def test_a_contradiction_is_refused_at_home(operation: Callable[[Any], Any]) -> None:
    """Nothing is sent."""
    peer = Peer()

    with pytest.raises(ValueError, match="either"):
        await drive("async", peer, operation)

    assert not peer.calls


async def test_a_named_gate_that_never_was_is_not_found() -> None:
    """As the server says it of an id."""
    peer = Peer()
    peer.will_answer("ListGates", gates_pb2.ListGatesResponse())

    with pytest.raises(NotFoundError) as caught:
        await drive("async", peer, lambda client: client.run(RUN_ID).gate("review").get())

    assert caught.value.reason == "GATE_NOT_FOUND"


def test_environment_fills_in_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, namespace and principal; given ones win; a principal has to fit into metadata."""
    monkeypatch.setenv("RUNKON_ADDRESS", "example:1")
    monkeypatch.setenv("RUNKON_NAMESPACE", "team")
    monkeypatch.setenv("RUNKON_PRINCIPAL", "robot")
    found = resolve_endpoint()
    given = resolve_endpoint("other:2", "mine", "me")

    assert (found.address, found.namespace, found.principal) == ("example:1", "team", "robot")
    assert (given.address, given.namespace, given.principal) == ("other:2", "mine", "me")
    with pytest.raises(ValueError, match="ASCII"):
        resolve_endpoint(principal="zoë")


async def test_instants_are_aware_and_spans_are_timedeltas() -> None:
    """To the microsecond; what is unset is None."""
    message = types_pb2.Run(id=RUN_ID, status=99)  # type: ignore[arg-type] # a newer server's
    message.create_time.FromJsonString("2026-01-02T03:04:05.678901Z")
    message.total_duration.FromMicroseconds(1_500_001)
    peer = Peer()
    peer.will_answer("GetRun", runs_pb2.GetRunResponse(run=message))

    run = await drive("async", peer, lambda client: client.get_run(RUN_ID))

    assert run.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert run.total_duration == timedelta(seconds=1, microseconds=500_001)
    assert run.ended_at is None
    assert run.status is RunStatus.UNKNOWN
    assert run.fail_fast
