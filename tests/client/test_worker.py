"""The worker and its tasks: what it takes, tells its actions, keeps alive and cancels."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from client.peers import Peer
from client.workers import cancel, is_true, one_action, working

from runkon.v1 import runs_pb2, types_pb2, workers_pb2
from runkon_client import (
    Actions,
    Task,
    Worker,
)
from runkon_client.worker import CancelReason, PriorContext
from support.waiting import eventually


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


async def test_it_says_which_queues_it_serves() -> None:
    """None unless it is told; a word by itself would be read letter by letter."""
    nothing = one_action(lambda _: None)
    async with working(nothing, queues=["gpu", "default"]) as (_, work, _running):
        named = (await work.next_stream()).hello
    async with working(nothing) as (_, work, _running):
        unnamed = (await work.next_stream()).hello

    assert [*named.queues] == ["gpu", "default"]
    assert [*unnamed.queues] == []
    with pytest.raises(TypeError, match="sequence of names"):
        Worker(queues="gpu")


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
async def test_a_task_tells_its_action_everything(*, is_async: bool) -> None:
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
        may_look.wait(60)
        task.raise_if_cancelled()

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        await eventually(lambda: is_true(is_running.is_set), "the action runs")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_FAIL_FAST)
        stream.lease("marker", action="?")
        marker = await stream.next_report()  # the frame after the cancel was handled
        may_look.set()
        report = await stream.next_report()

    assert marker.task_id == "marker"
    assert (report.task_id, report.cancelled.message) == ("t", "task t: fail_fast")


async def test_a_lost_lease_is_dropped_without_a_report() -> None:
    """It would be refused; a task that comes again is run again, and the older run stopped."""
    deliveries: list[int] = []
    stopped: list[CancelReason | None] = []

    async def act(task: Task) -> None:
        deliveries.append(task.delivery)
        if task.delivery == 0:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(task.cancel_reason)

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        await eventually(lambda: is_true(lambda: deliveries), "the first delivery runs")
        stream.lease("t", delivery=1)
        report = await stream.next_report()

        assert report.token == "t/1"
        assert deliveries == [0, 1]
        assert stopped == [CancelReason.LEASE_LOST]
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
async def test_progress_is_sent_at_once(*, is_async: bool) -> None:
    """From coroutines and from threads; the newest follows soon, cut to what is allowed."""
    may_end = threading.Event()

    def act(task: Task) -> None:
        task.heartbeat("5 of 10")
        task.heartbeat("ä" * 4000)
        may_end.wait(60)

    async def act_async(task: Task) -> None:
        task.heartbeat("5 of 10")
        task.heartbeat("ä" * 4000)
        await asyncio.to_thread(may_end.wait, 60)

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
    with pytest.raises(TypeError, match="the name is missing"):
        actions.action(lambda _: None)  # type: ignore[arg-type] # `@actions.action` by mistake
    actions.include(others)

    assert actions.names == ("a", "b", "*")
