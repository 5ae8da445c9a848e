"""Steps that are cancelled, time out, are tried again, begin late or pull others along."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from runkon_client import ActionOutput, Actions, Client, FinalError
from runkon_client.values import EventKind, RunStatus, StepRetrying, StepStatus
from runkon_client.worker import CancelReason
from support.clusters import working

if TYPE_CHECKING:
    from e2e.conftest import Place

    from runkon_client import Task

WITH_ALWAYS = "workflow w { call hold call never always { call tidy } }"


class Recorder:
    """An action `hold` that only a cancel ends, and a note of every task and every cancel."""

    def __init__(self) -> None:
        self.actions = Actions()
        self.actions.action("hold")(self._hold)
        self.actions.fallback(self._note)
        self.holding = asyncio.Event()
        self.done: list[str] = []
        self.cancels: list[CancelReason | None] = []
        self.cancelled = asyncio.Event()

    async def _hold(self, task: Task) -> None:
        self.holding.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancels.append(task.cancel_reason)
            self.cancelled.set()

    async def _note(self, task: Task) -> None:
        self.done.append(task.action)


async def test_a_cancel_stops_the_work_and_runs_the_always_section(
    client: Client, place: Place
) -> None:
    """The worker is told; nothing of the body begins after it; cancelling again changes nothing."""
    work = Recorder()
    async with working(place.address, work.actions, namespace=place.namespace):
        run = await client.start_run(source=WITH_ALWAYS)
        await asyncio.wait_for(work.holding.wait(), 60)
        asked = await run.cancel("enough")
        ended = await run.wait()
        again = await run.cancel("once more")
    kinds = [event.kind async for event in run.events()]

    assert asked.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)  # it may end by the answer
    assert (ended.status, ended.cancel_reason) == (RunStatus.CANCELLED, "enough")
    assert (again.status, again.cancel_reason) == (RunStatus.CANCELLED, "enough")
    assert work.cancels == [CancelReason.RUN_CANCELLED]
    assert work.done == ["tidy"]
    order = [EventKind.RUN_CANCEL_REQUESTED, EventKind.ALWAYS_STARTED, EventKind.RUN_FINISHED]
    assert [kind for kind in kinds if kind in order] == order
    assert kinds[-1] is EventKind.RUN_FINISHED


async def test_force_waits_for_nothing(client: Client, place: Place) -> None:
    """The run is over at once, without its always section; the worker is told all the same."""
    work = Recorder()
    async with working(place.address, work.actions, namespace=place.namespace):
        run = await client.start_run(source=WITH_ALWAYS)
        await asyncio.wait_for(work.holding.wait(), 60)
        await run.cancel("now", force=True)
        ended = await run.wait()
        await asyncio.wait_for(work.cancelled.wait(), 60)
    kinds = [event.kind async for event in run.events()]

    assert ended.status is RunStatus.CANCELLED
    assert work.cancels == [CancelReason.RUN_CANCELLED]
    assert work.done == []
    assert EventKind.ALWAYS_STARTED not in kinds


async def test_a_step_that_times_out_is_stopped_and_tried_again(
    client: Client, place: Place
) -> None:
    """The attempt's row says timed_out, the worker is told why, the next attempt succeeds."""
    cancels: list[CancelReason | None] = []
    actions = Actions()

    @actions.action("slow")
    async def slow(task: Task) -> None:
        assert task.deadline is not None
        if task.attempt == 0:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancels.append(task.cancel_reason)

    async with working(place.address, actions, namespace=place.namespace):
        run = await client.start_run(
            source='workflow w { call slow { timeout = "4s" retries = 1 } }'
        )
        ended = await run.wait()
    steps = [step async for step in run.steps()]
    kinds = [event.kind async for event in run.events()]

    assert ended.status is RunStatus.COMPLETED
    assert [step.status for step in steps] == [StepStatus.TIMED_OUT, StepStatus.COMPLETED]
    assert cancels == [CancelReason.TIMEOUT]
    assert kinds.index(EventKind.STEP_TIMED_OUT) < kinds.index(EventKind.STEP_RETRYING)


async def test_a_failed_branch_stops_its_siblings(client: Client, place: Place) -> None:
    """With fail_fast the worker of the other branch is told; the run fails, and says of what."""
    work = Recorder()

    @work.actions.action("bad")
    async def bad(_: Task) -> None:
        await work.holding.wait()
        raise FinalError("broken", code="E42")

    source = "workflow w { parallel { fail_fast = true call hold call bad } call never }"
    async with working(place.address, work.actions, namespace=place.namespace):
        run = await client.start_run(source=source)
        ended = await run.wait()
        await asyncio.wait_for(work.cancelled.wait(), 60)
    steps = {step.step_name: step async for step in run.steps()}

    assert ended.status is RunStatus.FAILED
    assert ended.error.endswith("`bad` failed: broken")
    assert work.cancels == [CancelReason.FAIL_FAST]
    assert work.done == []
    assert (steps["bad"].step_error, steps["bad"].error_code) == ("broken", "E42")
    assert steps["hold"].status is StepStatus.FAILED


async def test_without_fail_fast_the_others_finish(client: Client, place: Place) -> None:
    """One of two is enough where min_success says so."""
    actions = Actions()

    @actions.action("bad")
    async def bad(_: Task) -> None:
        raise FinalError("broken")

    @actions.fallback
    async def good(_: Task) -> None:
        pass

    source = "workflow w { parallel { fail_fast = false min_success = 1 call bad call good } }"
    async with working(place.address, actions, namespace=place.namespace):
        run = await client.start_run(source=source)
        ended = await run.wait()

    assert ended.status is RunStatus.COMPLETED


async def test_a_run_begins_after_its_delay(client: Client, place: Place) -> None:
    """It is pending until then, and begins by itself, not before its time."""
    work = Recorder()
    async with working(place.address, work.actions, namespace=place.namespace):
        run = await client.start_run(
            source="workflow w { call late }", start_delay=timedelta(seconds=1)
        )
        before = await run.get()
        ended = await run.wait()

    assert (before.status, before.scheduled_at is not None) == (RunStatus.PENDING, True)
    assert ended.status is RunStatus.COMPLETED
    assert ended.created_at is not None
    assert ended.started_at is not None
    assert (ended.started_at - ended.created_at) >= timedelta(seconds=1)


async def test_a_run_that_has_not_begun_is_cancelled_without_a_step(client: Client) -> None:
    """Its delay does not hold up its end."""
    run = await client.start_run(
        source="workflow w { call late }", start_delay=timedelta(minutes=10)
    )
    await run.cancel()
    ended = await run.wait()

    assert ended.status is RunStatus.CANCELLED
    assert [step async for step in run.steps()] == []


async def test_retries_tell_the_error_before_and_share_a_key(client: Client, place: Place) -> None:
    """Each attempt has its own row; the idempotency key stays."""
    seen: list[tuple[int, str, int]] = []
    keys: set[str] = set()
    actions = Actions()

    @actions.action("flaky")
    async def flaky(task: Task) -> None:
        seen.append((task.attempt, task.retry_error, task.retries_remaining))
        keys.add(task.idempotency_key)
        if task.attempt < 2:
            raise ValueError(f"attempt {task.attempt}")

    async with working(place.address, actions, namespace=place.namespace):
        run = await client.start_run(source="workflow w { call flaky { retries = 2 } }")
        ended = await run.wait()
    steps = [step.status async for step in run.steps()]
    retries = [event async for event in run.events(kinds=[EventKind.STEP_RETRYING])]

    assert ended.status is RunStatus.COMPLETED
    assert [(attempt, left) for attempt, _, left in seen] == [(0, 2), (1, 1), (2, 0)]
    assert "attempt 0" in seen[1][1]
    assert "attempt 1" in seen[2][1]
    assert len(keys) == 1
    assert steps == [StepStatus.FAILED, StepStatus.FAILED, StepStatus.COMPLETED]
    assert [retry.attempt for retry in retries if isinstance(retry, StepRetrying)] == [1, 2]


async def test_a_loop_goes_on_until_its_marker_is_gone(client: Client, place: Place) -> None:
    """The pass reaches the worker, and the rows."""
    passes: list[int] = []
    actions = Actions()

    @actions.action("review")
    async def review(task: Task) -> ActionOutput:
        passes.append(task.iteration)
        return ActionOutput(markers=("open",) if task.iteration < 2 else ())

    source = "workflow w { do { max_iterations = 5 call review } while review.open }"
    async with working(place.address, actions, namespace=place.namespace):
        run = await client.start_run(source=source)
        ended = await run.wait()
    steps = [step.iteration async for step in run.steps()]

    assert ended.status is RunStatus.COMPLETED
    assert passes == steps == [0, 1, 2]
