"""The worker against a server that follows a script: what it takes, runs, reports and survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from client.peers import Drop, Peer, WorkPeer, WorkStream, serve

from runkon.v1 import runs_pb2, types_pb2, workers_pb2
from runkon_client import (
    ActionOutput,
    Actions,
    FinalError,
    InvalidArgumentError,
    RetryableError,
    Task,
    Worker,
)
from runkon_client.worker import CancelReason, PriorContext
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def working(
    actions: Actions, *, grace_s: float = 5, concurrency: int = 4, peer: Peer | None = None
) -> AsyncIterator[tuple[Worker, WorkPeer, asyncio.Task[None]]]:
    """A worker that runs against a scripted server; it is stopped at the end, if it still runs."""
    work = WorkPeer()
    async with serve(peer, work=work) as address:
        worker = Worker(
            address,
            namespace="team",
            worker_id="w1",
            concurrency=concurrency,
            actions=actions,
            grace=timedelta(seconds=grace_s),
        )
        running = asyncio.create_task(worker.run())
        try:
            yield worker, work, running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def one_action(function: Callable[[Task], Any]) -> Actions:
    actions = Actions()
    actions.action("act")(function)
    return actions


async def is_true(condition: Callable[[], object]) -> bool:
    return bool(condition())


async def test_it_says_who_it_is_and_grants_what_it_can_take() -> None:
    """Hello comes first, and once; credit equals concurrency."""
    actions = Actions()
    actions.action("plan")(lambda _: None)
    actions.fallback(lambda _: None)

    async with working(actions) as (_, work, _running):
        stream = await work.next_stream()

        assert stream.hello.namespace == "team"
        assert stream.hello.worker_id == "w1"
        assert [*stream.hello.actions] == ["plan", "*"]
        assert stream.hello.concurrency == 4
        assert stream.hello.client.startswith("runkon-python/")
        assert stream.credit == 4


async def test_credit_comes_back_however_a_task_ends() -> None:
    """After success, failure and an unknown action open credit equals concurrency again."""

    async def act(task: Task) -> None:
        if task.id == "bad":
            raise ValueError("no")

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("good", "bad", "good again")
        stream.lease("strange", action="never heard of")
        stream.ack(*await stream.reports(4))

        assert stream.credit - 4 == 4


async def test_frames_carry_what_is_at_hand() -> None:
    """Hundreds of tasks in one frame come back in a few frames, with their credit beside them."""

    async def act(task: Task) -> str:
        return task.id

    async with working(one_action(act), concurrency=500) as (_, work, _running):
        stream = await work.next_stream()
        names = [f"t{number}" for number in range(500)]
        stream.lease(*names)
        reports = await stream.reports(500)

        assert sorted(report.result.result_text for report in reports) == sorted(names)
        assert len(stream.frames) < 25


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_a_task_tells_its_action_everything(is_async: bool) -> None:  # noqa: FBT001 - a parameter
    """Every field of the lease, in the types of the language."""
    seen: list[Any] = []

    def look(task: Task) -> None:
        seen.append(
            {
                "run": (task.run_id, task.action, task.iterations),
                "inputs": dict(task.inputs),
                "attempts": (task.attempt, task.retry_error, task.retries_remaining),
                "safety": (task.idempotency_key, task.fence, task.dry_run, task.deadline),
                "told": (task.gate_feedback, task.prior_contexts),
                "agent": (task.max_turns, [s.text for s in task.snippets], task.output_schema),
                "cancelled": task.cancelled,
            }
        )

    async def look_async(task: Task) -> None:
        look(task)

    context = {"step": "plan", "iteration": 1, "context": "c", "markers": ["m"]}
    lease: dict[str, Any] = {
        "inputs": {"ticket": "T-1"},
        "attempt": 2,
        "retry_error": "was bad",
        "retries_remaining": 1,
        "idempotency_key": "k",
        "fence": 7,
        "dry_run": True,
        "gate_feedback": "",
        "iterations": [0, 3],
        "prior_contexts": json.dumps([context]),
        "snippets": [workers_pb2.Snippet(name="s", text="be brief")],
    }
    async with working(one_action(look_async if is_async else look)) as (_, work, _running):
        stream = await work.next_stream()
        leased = workers_pb2.TaskLease(
            task_id="t", token="t/0", kind=workers_pb2.TASK_KIND_ACTION, action="act", run_id="r",
            **lease,
        )  # fmt: skip
        leased.deadline_time.FromSeconds(1_700_000_000)
        stream.send(leases=[leased])
        report = await stream.next_report()

    prior = PriorContext(
        step="plan",
        iteration=1,
        context="c",
        markers=("m",),
        structured_output="",
        output_file="",
    )
    deadline = datetime.fromtimestamp(1_700_000_000, UTC)
    assert report.WhichOneof("outcome") == "result"
    assert seen == [
        {
            "run": ("r", "act", (0, 3)),
            "inputs": {"ticket": "T-1"},
            "attempts": (2, "was bad", 1),
            "safety": ("k", 7, True, deadline),
            "told": ("", (prior,)),
            "agent": (None, ["be brief"], None),
            "cancelled": False,
        }
    ]


OUTPUTS: dict[str, tuple[Any, types_pb2.StepResult]] = {
    "nothing": (None, types_pb2.StepResult()),
    "a text": ("said", types_pb2.StepResult(result_text="said")),
    "a mapping": (
        {"markers": ["done"], "context": "c", "n": 1},
        types_pb2.StepResult(
            markers=["done"],
            context="c",
            structured_output='{"markers": ["done"], "context": "c", "n": 1}',
        ),
    ),
    "an output": (
        ActionOutput(
            markers=("a", "b"),
            context="c",
            result_text="r",
            structured_output=["ä", 1],
            output_file="f",
            metadata={"cost_usd": 0.5, "model": "m"},
        ),
        types_pb2.StepResult(
            markers=["a", "b"],
            context="c",
            result_text="r",
            structured_output='["ä", 1]',
            output_file="f",
            metadata={"cost_usd": "0.5", "model": "m"},
        ),
    ),
}


@pytest.mark.parametrize(("returned", "expected"), OUTPUTS.values(), ids=OUTPUTS)
async def test_what_an_action_returns_is_the_result(
    returned: Any, expected: types_pb2.StepResult
) -> None:
    """In each of the forms that it may have."""
    async with working(one_action(lambda _: returned)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        report = await stream.next_report()

    assert report == workers_pb2.TaskReport(task_id="t", token="t/0", result=expected)


FAILURES: dict[str, tuple[Callable[[], BaseException | Any], str, bool, str]] = {
    "any exception": (lambda: ValueError("broken"), "ValueError: broken", True, ""),
    "one without text": (KeyError, "KeyError", True, ""),
    "retryable": (lambda: RetryableError("later", code="BUSY"), "later", True, "BUSY"),
    "final": (lambda: FinalError("never", code="BAD"), "never", False, "BAD"),
    "sys.exit": (lambda: SystemExit(3), "SystemExit: 3", True, ""),
    "text that cannot be sent": (lambda: ValueError("a\0b\ud800"), "ValueError: ab?", True, ""),
}


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize(("make", "message", "retryable", "code"), FAILURES.values(), ids=FAILURES)
async def test_what_an_action_raises_is_the_failure(
    is_async: bool,  # noqa: FBT001 - a parameter
    make: Callable[[], BaseException],
    message: str,
    retryable: bool,  # noqa: FBT001 - a parameter
    code: str,
) -> None:
    """With its message; only a `FinalError` is not to be retried. The worker goes on."""

    def fail(task: Task) -> None:
        raise make()

    async def fail_async(task: Task) -> None:
        raise make()

    async with working(one_action(fail_async if is_async else fail)) as (_, work, _running):
        stream = await work.next_stream()
        for name in ("t", "u"):
            stream.lease(name)
            report = await stream.next_report()

            assert report.task_id == name
            assert report.failure == workers_pb2.TaskFailure(
                message=message, retryable=retryable, code=code
            )


UNSENDABLE: dict[str, tuple[Any, str]] = {
    "no output": (3, "OUTPUT_INVALID"),
    "no JSON": ({"when": datetime.now(UTC)}, "OUTPUT_INVALID"),
    "not a number": ({"n": float("nan")}, "OUTPUT_INVALID"),
    "odd markers": ({"markers": "done"}, "OUTPUT_INVALID"),
    "lone surrogate": ("\ud800", "OUTPUT_INVALID"),
    "larger than a message": ("x" * (4 << 20), "OUTPUT_LIMIT"),
}


@pytest.mark.parametrize(("returned", "code"), UNSENDABLE.values(), ids=UNSENDABLE)
async def test_output_that_cannot_be_sent_is_a_final_failure(returned: Any, code: str) -> None:
    """The stream stands, and the next task is worked on."""
    async with working(one_action(lambda _: returned)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        report = await stream.next_report()
        stream.lease("u")
        await stream.next_report()

    assert report.failure.code == code
    assert report.failure.retryable is False


async def test_a_cancelled_coroutine_stops_and_says_so() -> None:
    """The task knows why; the report is `cancelled`."""
    tasks: list[Task] = []

    async def act(task: Task) -> None:
        tasks.append(task)
        await asyncio.Event().wait()

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        await eventually(lambda: is_true(lambda: tasks), "the action runs")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_TIMEOUT)
        report = await stream.next_report()

    assert report.WhichOneof("outcome") == "cancelled"
    assert tasks[0].cancelled
    assert tasks[0].cancel_reason is CancelReason.TIMEOUT


def cancel(stream: WorkStream, token: str, reason: workers_pb2.CancelReason.ValueType) -> None:
    stream.send(cancels=[workers_pb2.TaskCancel(task_id="t", token=token, reason=reason)])


async def test_a_task_cancelled_before_its_first_step_is_reported() -> None:
    """Lease and cancel in one frame: the credit comes back and the report goes out."""

    async def act(task: Task) -> None:
        raise AssertionError("never runs")

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_RUN_CANCELLED)
        report = await stream.next_report()

        assert report.WhichOneof("outcome") in ("cancelled", "failure")
        assert stream.credit == 5


async def test_a_cancelled_function_is_told() -> None:
    """A thread cannot be stopped: it looks at `cancelled`, or lets it raise."""
    is_running = threading.Event()
    may_look = threading.Event()

    def act(task: Task) -> None:
        is_running.set()
        may_look.wait(10)
        task.raise_if_cancelled()

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        await eventually(lambda: is_true(is_running.is_set), "the action runs")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_FAIL_FAST)
        stream.lease("marker", action="?")
        await stream.next_report()  # the frame after the cancel was handled
        may_look.set()
        report = await stream.next_report()

    assert (report.task_id, report.WhichOneof("outcome")) == ("t", "cancelled")


async def test_a_lost_lease_is_dropped_without_a_report() -> None:
    """It would be refused; a task that comes again is run again."""
    deliveries: list[int] = []

    async def act(task: Task) -> None:
        deliveries.append(task.delivery)
        if task.delivery == 0:
            await asyncio.Event().wait()

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        await eventually(lambda: is_true(lambda: deliveries), "the first delivery runs")
        stream.lease("t", delivery=1)
        report = await stream.next_report()

        assert report.token == "t/1"
        assert deliveries == [0, 1]
        assert [r.token for frame in stream.frames for r in frame.reports] == ["t/1"]


async def test_heartbeats_keep_every_task_in_hand() -> None:
    """All of them in one frame, at the interval the welcome names, until they end."""
    may_end = asyncio.Event()

    async def act(task: Task) -> None:
        await may_end.wait()

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream(interval_s=0.05)
        stream.lease("a", "b")
        beats: list[set[str]] = []
        while len(beats) < 3:
            frame = await stream.next_frame()
            if frame.heartbeats:
                beats.append({beat.token for beat in frame.heartbeats})
        may_end.set()
        await stream.reports(2)

    assert beats[-1] == {"a/0", "b/0"}


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_progress_is_sent_at_once(is_async: bool) -> None:  # noqa: FBT001 - a parameter
    """From coroutines and from threads; the newest follows soon, cut to what is allowed."""
    may_end = threading.Event()

    def act(task: Task) -> None:
        task.heartbeat("5 of 10")
        task.heartbeat("ä" * 4000)
        may_end.wait(10)

    async def act_async(task: Task) -> None:
        task.heartbeat("5 of 10")
        task.heartbeat("ä" * 4000)
        await asyncio.to_thread(may_end.wait, 10)

    async with working(one_action(act_async if is_async else act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        beats: list[workers_pb2.TaskHeartbeat] = []
        while not beats or beats[-1].progress == "5 of 10":
            beats += (await stream.next_frame()).heartbeats
        may_end.set()
        await stream.next_report()

    assert beats[-1] == workers_pb2.TaskHeartbeat(task_id="t", token="t/0", progress="ä" * 2048)


async def test_contexts_left_out_are_fetched_when_asked_for() -> None:
    """From the run's completed steps, oldest first, in coroutines and in threads."""
    steps = [
        types_pb2.Step(id=name, step_name=name, context=name, status=status, role=role)
        for name, status, role in (
            ("late", types_pb2.STEP_STATUS_COMPLETED, types_pb2.STEP_ROLE_ACTOR),
            ("early", types_pb2.STEP_STATUS_COMPLETED, types_pb2.STEP_ROLE_SCRIPT),
            ("gate", types_pb2.STEP_STATUS_COMPLETED, types_pb2.STEP_ROLE_GATE),
            ("failed", types_pb2.STEP_STATUS_FAILED, types_pb2.STEP_ROLE_ACTOR),
        )
    ]
    steps[0].end_time.FromSeconds(20)
    steps[1].end_time.FromSeconds(10)
    peer = Peer()
    peer.will_answer("ListSteps", *[runs_pb2.ListStepsResponse(steps=steps)] * 2)
    actions = Actions()

    @actions.action("async")
    async def in_coroutine(task: Task) -> str:
        with pytest.raises(RuntimeError, match="fetch_prior_contexts"):
            assert not task.prior_contexts
        return ",".join(entry.context for entry in await task.fetch_prior_contexts())

    @actions.action("sync")
    def in_thread(task: Task) -> str:
        return ",".join(entry.context for entry in task.prior_contexts)

    async with working(actions, peer=peer) as (_, work, _running):
        stream = await work.next_stream()
        for action in ("async", "sync"):
            stream.lease(action, action=action, prior_contexts_omitted=True, namespace="team")
            report = await stream.next_report()

            assert report.result.result_text == "early,late"
    assert [request.run_id for request in peer.requests("ListSteps")] == ["01JRUN"] * 2


async def test_reports_without_an_ack_are_sent_again_on_the_next_stream() -> None:
    """Acked ones are not; tasks in hand go on over the break and are kept by a heartbeat."""
    may_end = asyncio.Event()
    started: list[str] = []

    async def act(task: Task) -> str:
        started.append(task.id)
        if task.id == "long":
            await may_end.wait()
        return task.id

    async with working(one_action(act)) as (_, work, _running):
        first = await work.next_stream()
        first.lease("acked", "lost", "long")
        by_id = {report.task_id: report for report in await first.reports(2)}
        first.ack(by_id["acked"])
        first.lease("marker", action="?")
        first.ack(await first.next_report())
        first.drop()
        second = await work.next_stream()
        report = await second.next_report()
        beaten = {beat.token for frame in second.frames for beat in frame.heartbeats}
        may_end.set()
        last = await second.next_report()

    assert report == by_id["lost"]
    assert "long/0" in beaten
    assert last.result.result_text == "long"
    assert second.frames[0].credit == 3, "one task is in hand"
    assert sorted(started) == ["acked", "long", "lost"]


async def test_a_stale_report_is_dropped() -> None:
    """Refused for good, or for content: the first is forgotten, the second said in other words."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("stale", "bad", "away")
        reports = {report.task_id: report for report in await stream.reports(3)}
        stream.ack(reports["stale"], status=workers_pb2.ACK_STATUS_STALE, code=9)
        stream.ack(reports["bad"], status=workers_pb2.ACK_STATUS_REFUSED, code=3)
        stream.ack(reports["away"], status=workers_pb2.ACK_STATUS_REFUSED, code=14)
        again = {report.task_id: report for report in await stream.reports(2)}
        stream.ack(again["bad"], status=workers_pb2.ACK_STATUS_REFUSED, code=3)
        stream.ack(again["away"])
        stream.lease("marker", action="?")
        marker = await stream.next_report()

    assert again["away"] == reports["away"]
    assert again["bad"].failure.code == "REPORT_REFUSED"
    assert "refused by the script" in again["bad"].failure.message
    assert marker.task_id == "marker"


async def test_a_stop_finishes_what_is_in_hand() -> None:
    """Drain is said, no credit is given, the report is delivered, then the stream is closed."""
    may_end = asyncio.Event()
    started = asyncio.Event()

    async def act(task: Task) -> str:
        started.set()
        await may_end.wait()
        return "finished"

    async with working(one_action(act)) as (worker, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        worker.stop()
        worker.stop()
        while not (frame := await stream.next_frame()).HasField("drain"):
            pass
        may_end.set()
        report = await stream.next_report()
        stream.ack(report)
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(10):
            await running

    assert report.result.result_text == "finished"
    assert frame.credit == 0
    assert stream.credit == 4
    assert sum(frame.HasField("drain") for frame in stream.frames) == 1


async def test_a_stop_during_a_break_still_delivers() -> None:
    """The report goes out on a stream that is opened only after the stop."""
    started = asyncio.Event()
    may_end = asyncio.Event()

    async def act(task: Task) -> str:
        started.set()
        await may_end.wait()
        return "finished"

    async with working(one_action(act)) as (worker, work, running):
        first = await work.next_stream()
        first.lease("t")
        await started.wait()
        first.drop()
        worker.stop()
        may_end.set()
        second = await work.next_stream()
        report = await second.next_report()
        second.ack(report)
        assert await second.is_closed_by_worker()
        second.outgoing.put_nowait(None)
        async with asyncio.timeout(10):
            await running

    assert report.result.result_text == "finished"
    assert second.frames[0].HasField("drain")
    assert second.credit == 0


async def test_what_is_not_finished_in_time_is_left_to_others() -> None:
    """No report: unasked it would count as a failure, while a lease just runs out."""
    reasons: list[CancelReason | None] = []
    started = asyncio.Event()

    async def act(task: Task) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(task.cancel_reason)

    async with working(one_action(act), grace_s=0.05) as (worker, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        worker.stop()
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(10):
            await running

    assert reasons == [CancelReason.WORKER_STOPPED]
    assert not [report for frame in stream.frames for report in frame.reports]


async def test_a_replica_that_drains_is_left() -> None:
    """The worker waits as asked, then goes on elsewhere; reports in flight are acked first."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        first = await work.next_stream()
        first.lease("t")
        report = await first.next_report()
        drain = workers_pb2.ServerDrain()
        drain.grace.FromSeconds(10)
        drain.reconnect_delay.FromMilliseconds(10)
        first.send(drain=drain)
        first.ack(report)
        second = await work.next_stream()
        second.lease("u")
        report = await second.next_report()

        assert report.task_id == "u"
        assert first.is_over


async def test_a_stream_without_a_welcome_or_acks_is_given_up() -> None:
    """Open is not alive: acks that do not come within a lease mean another stream."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        first = await work.next_stream(lease_s=0.1, interval_s=0.05)
        first.lease("t")
        report = await first.next_report()
        second = await work.next_stream()

        assert await second.next_report() == report


async def test_it_reconnects_for_ever() -> None:
    """Whatever a server or a proxy says, but for a refusal of the worker itself."""
    drops = [
        Drop(),
        Drop(grpc.StatusCode.INTERNAL),
        Drop(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA", retry_after_s=0.01),
        Drop(grpc.StatusCode.UNIMPLEMENTED),
    ]
    async with working(one_action(lambda _: None)) as (_, work, _running):
        for drop in drops:
            (await work.next_stream(welcome=False)).drop(drop)
        (await work.next_stream()).outgoing.put_nowait(None)
        stream = await work.next_stream()

        assert stream.hello.worker_id == "w1"


async def test_it_waits_for_a_server_that_is_not_there() -> None:
    """Started before its server, it finds it."""
    async with serve(Peer()) as address:
        pass
    worker = Worker(address, worker_id="early", actions=one_action(lambda _: None))
    running = asyncio.create_task(worker.run())
    work = WorkPeer()
    try:
        done, _ = await asyncio.wait({running}, timeout=0.3)
        async with serve(work=work, address=address):
            stream = await work.next_stream()

            assert not done
            assert stream.hello.worker_id == "early"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_cancelled_worker_stops_its_actions() -> None:
    """Without a stop first: coroutines are cancelled and have cleaned up when `run` is over."""
    ended: list[CancelReason | None] = []
    started = asyncio.Event()

    async def act(task: Task) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(task.cancel_reason)

    async with working(one_action(act)) as (_, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert ended == [CancelReason.WORKER_STOPPED]


SCRIPT = """
import sys
from runkon_client import Worker

worker = Worker(sys.argv[1], worker_id="process")

@worker.action("act")
def act(task):
    return "said"

worker.run_forever()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_a_process(number: signal.Signals) -> None:
    """`run_forever` in a process of its own: it says that it drains, closes, and exits with 0."""
    work = WorkPeer()
    async with serve(work=work) as address:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, address, stdout=asyncio.subprocess.PIPE
        )
        stream = await work.next_stream()
        stream.lease("t")
        stream.ack(await stream.next_report())
        process.send_signal(number)
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(10):
            output, _ = await process.communicate()

    assert process.returncode == 0
    assert output == b"ended\n"
    assert any(frame.HasField("drain") for frame in stream.frames)


async def test_a_refused_worker_ends() -> None:
    """A hello that is wrong will not get better."""
    async with working(one_action(lambda _: None)) as (_, work, running):
        stream = await work.next_stream(welcome=False)
        stream.drop(Drop(grpc.StatusCode.INVALID_ARGUMENT, reason="FIELD_INVALID"))

        with pytest.raises(InvalidArgumentError):
            await running


async def test_a_worker_needs_actions_and_a_sane_concurrency() -> None:
    """Mistakes of the caller are told at once."""
    with pytest.raises(ValueError, match="action"):
        await Worker().run()
    with pytest.raises(ValueError, match="concurrency"):
        Worker(concurrency=0)
    with pytest.raises(ValueError, match="concurrency"):
        Worker(concurrency=1001)


def test_names_of_actions_are_checked() -> None:
    """Twice the same, none, or the fallback's are refused; collections can be joined."""
    actions = Actions()
    actions.action("a")(lambda _: None)
    others = Actions()
    others.action("b")(lambda _: None)
    others.fallback(lambda _: None)

    for name in ("a", "", "*", "x" * 129):
        with pytest.raises(ValueError, match=r"action"):
            actions.action(name)(lambda _: None)
    actions.include(others)

    assert actions.names == ("a", "b", "*")
