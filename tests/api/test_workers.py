"""WorkerService over real gRPC; the engine's sessions are scripted."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from runkon.v1 import gates_pb2, types_pb2, workers_pb2, workers_pb2_grpc
from runkon_server import errors
from runkon_server.api.workers import WorkerService
from runkon_server.core.decision import GateWork, ItemsWork, ScriptWork
from runkon_server.core.facts import Outcome
from runkon_server.runtime.commands import (
    ACCEPTED,
    AckStatus,
    HeartbeatAnswer,
    ReportAck,
    TaskCancel,
    Verdict,
)
from runkon_server.runtime.reports import not_recorded, stale
from support.live_api import refusal
from support.replicas import FakeReplica, FakeSession, lease, read, serving
from support.rows import NOON, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUN = ulid(1)
TASK = f"{RUN}/b.0001/e1/0"
HELLO = workers_pb2.WorkerHello(worker_id="w-1", actions=["plan", "*"], concurrency=4)


def report(task_id: str = TASK, **result: Any) -> workers_pb2.TaskReport:
    return workers_pb2.TaskReport(
        task_id=task_id, token="t0", result=types_pb2.StepResult(**result)
    )


class Bench:
    """A served WorkerService and the engine behind it."""

    def __init__(self, replica: FakeReplica, stub: workers_pb2_grpc.WorkerServiceAsyncStub) -> None:
        self.replica = replica
        self.stub = stub

    async def open(self) -> tuple[Any, FakeSession]:
        """A stream that has been welcomed, and its session."""
        call = self.stub.Work()
        await call.write(workers_pb2.WorkRequest(hello=HELLO))
        assert (await read(call)).HasField("welcome")
        return call, self.replica.sessions[-1]


FIXED_WINDOW = [("grpc.http2.bdp_probe", 0)]
"""Else a slow machine's window grows until it holds all that is sent to who does not read."""


@contextlib.asynccontextmanager
async def bench_of(write_s: float = 30) -> AsyncIterator[Bench]:
    replica = FakeReplica()
    service = WorkerService(replica, write_s=write_s)

    def add(server: grpc.aio.Server) -> None:
        workers_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)

    async with serving(add, channel_options=FIXED_WINDOW) as channel:
        yield Bench(replica, workers_pb2_grpc.WorkerServiceStub(channel))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with bench_of() as made:
        yield made


async def heard(session: FakeSession, count: int) -> list[tuple[str, Any]]:
    """What the session was told, once it is so much."""

    async def is_complete() -> bool:
        return len(session.heard) >= count

    await eventually(is_complete, f"{count} words to the session, not {session.heard}")
    return session.heard


async def failure_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await _drained(call)
    return failed.value.code()


async def _drained(call: Any) -> None:
    while await read(call) is not grpc.aio.EOF:
        pass


async def test_a_worker_is_welcomed(bench: Bench) -> None:
    """The first frame says who serves and how often to send heartbeats."""
    call = bench.stub.Work()
    await call.write(workers_pb2.WorkRequest(hello=HELLO, credit=3))

    welcome = (await read(call)).welcome

    hello = bench.replica.sessions[0].hello
    assert welcome.replica == "replica-1"
    assert welcome.lease_duration.ToTimedelta() == timedelta(seconds=12)
    assert welcome.heartbeat_interval.ToTimedelta() == timedelta(seconds=4)
    assert (hello.namespace, hello.worker_id) == ("default", "w-1")
    assert hello.actions == frozenset({"plan", "*"})
    assert (hello.item_providers, hello.gate_types, hello.scripts) == (
        frozenset(),
        frozenset(),
        False,
    )


async def test_a_worker_may_offer_more_than_actions(bench: Bench) -> None:
    """Over a stream and by a plain call."""
    offers: dict[str, Any] = {
        "item_providers": ["tickets"],
        "gate_types": ["moon"],
        "scripts": True,
        "queues": ["gpu", "default"],
    }
    call = bench.stub.Work()
    await call.write(
        workers_pb2.WorkRequest(
            hello=workers_pb2.WorkerHello(worker_id="w-2", concurrency=1, **offers)
        )
    )
    await read(call)
    await bench.stub.PollTasks(workers_pb2.PollTasksRequest(worker_id="w-3", **offers))

    for hello in (bench.replica.sessions[0].hello, bench.replica.polls[0][0]):
        assert hello.actions == frozenset()
        assert hello.item_providers == frozenset({"tickets"})
        assert (hello.gate_types, hello.scripts) == (frozenset({"moon"}), True)
        assert hello.queues == frozenset({"gpu", ""})


async def test_a_frame_is_handled_in_the_order_of_the_contract(bench: Bench) -> None:
    """Reports, heartbeats, credit, drain, however the frame was put together."""
    call, session = await bench.open()
    await call.write(
        workers_pb2.WorkRequest(
            drain=workers_pb2.WorkerDrain(),
            credit=2,
            heartbeats=[workers_pb2.TaskHeartbeat(task_id=TASK, token="t0", progress="half")],
            reports=[report(result_text="ok")],
        )
    )

    words = await heard(session, 4)

    assert [kind for kind, _ in words] == ["report", "heartbeat", "credit", "drain"]
    assert words[0][1][0].fact.result_text == "ok"
    assert words[1][1][0].progress == "half"


async def test_what_is_in_the_outbox_leaves_in_one_frame(bench: Bench) -> None:
    """40 leases, a cancel and an ack that lie ready together come together."""
    call, session = await bench.open()
    await call.write(workers_pb2.WorkRequest(credit=40))
    await heard(session, 1)

    session.put(
        leases=[lease(f"{TASK}{number}") for number in range(40)],
        cancels=[TaskCancel(task_id=TASK, token="t0", reason="timeout")],
        acks=[ReportAck(task_id=TASK, token="t0", verdict=ACCEPTED)],
    )
    frame = await read(call)

    assert len(frame.leases) == 40
    assert frame.cancels[0].reason == workers_pb2.CANCEL_REASON_TIMEOUT
    assert frame.acks[0].status == workers_pb2.ACK_STATUS_ACCEPTED
    assert not frame.acks[0].HasField("error")


async def test_leases_that_are_heavy_together_are_split(bench: Bench) -> None:
    """10 leases of 300 KB each come in frames below the message limit."""
    call, session = await bench.open()
    session.put(leases=[lease(f"{TASK}{n}", inputs={"x": "y" * 300_000}) for n in range(10)])
    sizes: list[int] = []
    count = 0

    while count < 10:
        frame = await read(call)
        sizes.append(frame.ByteSize())
        count += len(frame.leases)

    assert max(sizes) <= 1024 * 1024
    assert len(sizes) > 3


async def test_a_lease_too_heavy_for_a_message_fails_its_step(bench: Bench) -> None:
    """The server reports for the worker, who could never be told of the task."""
    call, session = await bench.open()

    session.put(leases=[lease(inputs={"x": "y" * 5_000_000}), lease(f"{TASK}1")])
    frame = await read(call)

    fact = session.told("report")[0][0].fact
    assert [each.task_id for each in frame.leases] == [f"{TASK}1"]
    assert (fact.task_id, fact.outcome, fact.error_code) == (TASK, Outcome.FAILED, "INPUT_LIMIT")
    assert not fact.retryable


async def test_a_lease_says_everything(bench: Bench) -> None:
    """Every part of the order is in the message."""
    call, session = await bench.open()
    session.put(
        leases=[
            lease(
                prior_contexts=None,
                retry_error="no luck",
                gate_feedback="",
                identity="bot",
                max_turns=5,
                plugin_dirs=("a", "b"),
                deadline_at=NOON,
                dry_run=True,
            )
        ]
    )

    told = (await read(call)).leases[0]

    assert told.kind == workers_pb2.TASK_KIND_ACTION
    assert (told.task_id, told.token, told.action) == (TASK, "t0", "plan")
    assert (told.fence, told.attempt, told.retries_remaining) == (7, 1, 2)
    assert (told.iteration, list(told.iterations)) == (1, [2, 1])
    assert dict(told.inputs) == {"ticket": "T-1"}
    assert told.prior_contexts_omitted
    assert told.retry_error == "no luck"
    assert told.HasField("gate_feedback")
    assert (told.identity, told.max_turns, list(told.plugin_dirs)) == ("bot", 5, ["a", "b"])
    assert told.deadline_time.ToDatetime(NOON.tzinfo) == NOON
    assert told.lease_duration.ToTimedelta() == timedelta(seconds=12)
    assert told.dry_run


async def test_a_lease_says_what_kind_of_work_it_is(bench: Bench) -> None:
    """A script, a collection of items, a look at a gate; each with all that it needs."""
    call, session = await bench.open()
    session.put(
        leases=[
            lease(
                kind="script",
                work=ScriptWork(text="make $V_1", environment={"V_1": "all"}, timeout_s=1.5),
            ),
            lease(
                kind="items",
                work=ItemsWork(
                    provider="tickets",
                    scope={},
                    filter={"state": "open"},
                    ordered=True,
                    items_max=10_000,
                ),
            ),
            lease(
                kind="gate",
                work=GateWork(
                    gate_id=TASK,
                    name="approval",
                    gate_type="pr_approval",
                    prompt=None,
                    options=(("y", "Yes"),),
                    min_approvals=2,
                    approval_mode="review_decision",
                ),
            ),
        ]
    )

    script, items, gate = (await read(call)).leases

    assert (script.kind, script.script.text) == (workers_pb2.TASK_KIND_SCRIPT, "make $V_1")
    assert dict(script.script.environment) == {"V_1": "all"}
    assert script.script.timeout.ToMilliseconds() == 1500
    assert (items.kind, items.items.provider) == (workers_pb2.TASK_KIND_ITEMS, "tickets")
    assert (items.items.has_scope, dict(items.items.scope)) == (True, {})
    assert (dict(items.items.filter), items.items.ordered) == ({"state": "open"}, True)
    assert items.items.items_max == 10_000
    poll = gate.gate_poll
    assert (gate.kind, poll.gate_id) == (workers_pb2.TASK_KIND_GATE, TASK)
    assert (poll.gate_name, poll.gate_type, poll.prompt) == ("approval", "pr_approval", "")
    assert [(option.key, option.label) for option in poll.options] == [("y", "Yes")]
    assert poll.min_approvals == 2
    assert poll.approval_mode == gates_pb2.APPROVAL_MODE_REVIEW_DECISION


async def test_a_script_without_a_limit_and_a_foreach_without_a_scope(bench: Bench) -> None:
    """What is not there is not there, instead of being zero or empty."""
    call, session = await bench.open()
    nothing = ItemsWork(provider="p", scope=None, filter={}, ordered=False, items_max=1)
    session.put(
        leases=[
            lease(kind="script", work=ScriptWork(text="true", environment={})),
            lease(kind="items", work=nothing),
        ]
    )

    script, items = (await read(call)).leases

    assert not script.script.HasField("timeout")
    assert not items.items.has_scope


async def test_a_lease_holds_the_texts_of_snippets_and_schema(bench: Bench) -> None:
    call, session = await bench.open()
    session.put(
        leases=[
            lease(snippets=(("tone", "Be brief."), ("gone", "")), output_schema=("review", "a: b"))
        ]
    )

    told = (await read(call)).leases[0]

    assert [(each.name, each.text) for each in told.snippets] == [
        ("tone", "Be brief."),
        ("gone", ""),
    ]
    assert (told.output_schema.name, told.output_schema.source) == ("review", "a: b")


@pytest.mark.parametrize(
    ("verdict", "reason", "code"),
    [
        (stale(TASK, "handed out again"), "TASK_ATTEMPT_STALE", 9),
        (Verdict(AckStatus.REFUSED, errors.TaskNotFoundError(TASK)), "TASK_NOT_FOUND", 5),
        (Verdict(AckStatus.REFUSED, errors.ReportConflictError(TASK)), "REPORT_CONFLICT", 6),
        (not_recorded(), "UNAVAILABLE", 14),
    ],
)
async def test_a_report_that_does_not_count_is_told_why(
    bench: Bench, verdict: Verdict, reason: str, code: int
) -> None:
    """Fault 33: the ack carries what the call would have failed with."""
    call, session = await bench.open()

    session.put(acks=[ReportAck(task_id=TASK, token="t0", verdict=verdict)])
    error = (await read(call)).acks[0].error

    assert (error.reason, error.code) == (reason, code)


async def test_a_report_without_an_outcome_is_refused_alone(bench: Bench) -> None:
    """The good one beside it is taken and the stream goes on."""
    call, session = await bench.open()

    await call.write(
        workers_pb2.WorkRequest(
            reports=[workers_pb2.TaskReport(task_id=TASK, token="t0"), report(f"{TASK}1")]
        )
    )
    ack = (await read(call)).acks[0]

    assert ack.status == workers_pb2.ACK_STATUS_REFUSED
    assert (ack.error.code, ack.task_id, ack.token) == (3, TASK, "t0")
    assert [each.fact.task_id for each in session.told("report")[0]] == [f"{TASK}1"]


async def test_too_long_a_word_does_not_cost_the_lease(bench: Bench) -> None:
    """Progress over 4 KiB is cut between characters; the heartbeat counts."""
    call, session = await bench.open()
    beat = workers_pb2.TaskHeartbeat(task_id=TASK, token="t0", progress="é" * 3000)

    await call.write(workers_pb2.WorkRequest(heartbeats=[beat]))
    words = await heard(session, 1)

    assert words[0][1][0].progress == "é" * 2048


async def test_a_heartbeat_that_is_none_is_told_by_its_place(bench: Bench) -> None:
    """Counted over the whole frame, which is taken in portions."""
    call, _ = await bench.open()
    beat = workers_pb2.TaskHeartbeat(task_id=TASK, token="t0", progress="x" * 4_000)

    await call.write(
        workers_pb2.WorkRequest(heartbeats=[*[beat] * 40, workers_pb2.TaskHeartbeat(task_id="no")])
    )
    refused = await refusal(call.read())

    assert refused.fields == ["heartbeats[40].task_id", "heartbeats[40].token"]


async def test_the_last_acks_reach_a_worker_that_has_closed_its_side(bench: Bench) -> None:
    """The stream stays open for them, then it ends well."""
    call, session = await bench.open()
    await call.write(workers_pb2.WorkRequest(reports=[report()]))
    await call.done_writing()
    words = await heard(session, 2)

    session.put(acks=[ReportAck(task_id=TASK, token="t0", verdict=ACCEPTED)])
    frame = await read(call)

    assert [kind for kind, _ in words[:2]] == ["report", "drain"]
    assert frame.acks[0].status == workers_pb2.ACK_STATUS_ACCEPTED
    assert await read(call) is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "frames",
    [
        [workers_pb2.WorkRequest(credit=1)],
        [workers_pb2.WorkRequest(hello=HELLO), workers_pb2.WorkRequest(hello=HELLO)],
        [workers_pb2.WorkRequest(hello=workers_pb2.WorkerHello(actions=["a"], concurrency=1))],
        [workers_pb2.WorkRequest(hello=HELLO, credit=-1)],
        [workers_pb2.WorkRequest(hello=HELLO, credit=999), workers_pb2.WorkRequest(credit=2)],
    ],
    ids=["no hello", "hello twice", "no worker id", "negative credit", "too much credit"],
)
async def test_a_frame_against_the_rules_ends_the_stream(
    bench: Bench, frames: list[workers_pb2.WorkRequest]
) -> None:
    """INVALID_ARGUMENT, and the session is closed."""
    call = bench.stub.Work()
    for frame in frames:
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(frame)

    code = await failure_of(call)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert all(session.told("close") for session in bench.replica.sessions)


async def test_credit_comes_back_with_each_lease(bench: Bench) -> None:
    """1,000 may be open: after 1,000 leases another 1,000 may be granted."""
    call, session = await bench.open()
    await call.write(workers_pb2.WorkRequest(credit=1000))
    await heard(session, 1)
    session.put(leases=[lease(f"{TASK}{number}") for number in range(1000)])
    leased = 0
    while leased < 1000:
        leased += len((await read(call)).leases)

    await call.write(workers_pb2.WorkRequest(credit=1000))
    await heard(session, 2)

    assert session.told("credit") == [1000, 1000]


async def test_a_drain_is_announced_and_ends_the_stream(bench: Bench) -> None:
    """Nothing more is taken; a new stream is refused."""
    call, session = await bench.open()

    bench.replica.drain()
    drain = (await read(call)).drain
    code = await failure_of(call)

    assert drain.grace.ToTimedelta() == timedelta(0)
    assert drain.reconnect_delay.ToTimedelta() <= timedelta(milliseconds=500)
    assert session.told("close")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert await failure_of(await _new(bench)) is grpc.StatusCode.UNAVAILABLE


async def test_acks_of_the_last_commit_come_before_a_drain_ends_the_stream(bench: Bench) -> None:
    """A report that was taken is answered if its commit is not far."""
    call, session = await bench.open()
    await call.write(workers_pb2.WorkRequest(reports=[report()]))
    await heard(session, 1)

    bench.replica.drain()
    assert (await read(call)).HasField("drain")
    session.put(acks=[ReportAck(task_id=TASK, token="t0", verdict=ACCEPTED)])
    frame = await read(call)

    assert frame.acks[0].status == workers_pb2.ACK_STATUS_ACCEPTED
    assert await failure_of(call) is grpc.StatusCode.UNAVAILABLE


async def test_a_drain_ends_a_long_poll(bench: Bench) -> None:
    """The worker asks elsewhere instead of waiting for nothing."""
    bench.replica.poll_gate.clear()
    request = workers_pb2.PollTasksRequest(worker_id="w", actions=["plan"])
    call = bench.stub.PollTasks(request)

    async def has_come() -> bool:
        return bool(bench.replica.polls)

    await eventually(has_come, "the poll is at the engine")
    bench.replica.drain()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call

    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def _new(bench: Bench) -> Any:
    call = bench.stub.Work()
    await call.write(workers_pb2.WorkRequest(hello=HELLO))
    return call


async def test_a_worker_that_goes_away_closes_its_session(bench: Bench) -> None:
    """Its tasks stay leased; the engine is told that nobody is there."""
    call, session = await bench.open()

    call.cancel()

    assert (await heard(session, 1))[-1][0] == "close"


async def test_a_worker_that_does_not_read_is_given_up() -> None:
    """Leases that nobody takes end the stream and close the session."""
    async with bench_of(write_s=2) as bench:
        call, session = await bench.open()
        session.put(leases=[lease(f"{TASK}{n}", inputs={"x": "y" * 500_000}) for n in range(40)])

        async def is_closed() -> bool:
            return bool(session.told("close"))

        await eventually(is_closed, "the session is closed")

        assert await failure_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_poll_tasks_waits_no_longer_than_the_contract_says(bench: Bench) -> None:
    """Unset or too long means 50 s; zero tasks means one, too many means 100."""
    bench.replica.poll_answer = [lease()]
    request = workers_pb2.PollTasksRequest(worker_id="w", actions=["plan"])

    answer = await bench.stub.PollTasks(request)
    request.max_tasks = 1000
    request.wait.FromTimedelta(timedelta(seconds=2))
    await bench.stub.PollTasks(request)

    assert [each.task_id for each in answer.leases] == [TASK]
    assert [(most, wait_s) for _, most, wait_s in bench.replica.polls] == [(1, 50), (100, 2)]


async def test_report_task_says_whether_it_is_a_repeat(bench: Bench) -> None:
    """The engine's word on it is the answer."""
    request = workers_pb2.ReportTaskRequest(namespace="team", report=report(result_text="ok"))

    first = await bench.stub.ReportTask(request)
    bench.replica.report_answer = AckStatus.DUPLICATE
    second = await bench.stub.ReportTask(request)

    digests = [told.digest for _, told in bench.replica.reports]
    assert (first.replayed, second.replayed) == (False, True)
    assert bench.replica.reports[0][0] == "team"
    assert digests[0] == digests[1]


async def test_heartbeat_task_asks_if_the_task_is_wanted(bench: Bench) -> None:
    """A cancel comes with its reason; an unknown task is stale."""
    request = workers_pb2.HeartbeatTaskRequest(
        heartbeat=workers_pb2.TaskHeartbeat(task_id=TASK, token="t0")
    )
    bench.replica.beat_answer = HeartbeatAnswer(
        task_id=TASK, token="t0", known=True, cancel_reason="fail_fast"
    )
    answer = await bench.stub.HeartbeatTask(request)
    bench.replica.beat_answer = HeartbeatAnswer(task_id=TASK, token="t0", known=False)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await bench.stub.HeartbeatTask(request)

    assert answer.cancel_requested
    assert answer.cancel_reason == workers_pb2.CANCEL_REASON_FAIL_FAST
    assert answer.lease_duration.ToTimedelta() == timedelta(seconds=12)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
