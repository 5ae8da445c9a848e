"""What an action returns or raises, and what the worker reports of it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from client.workers import cancel, lease_of, one_action, reported, working

from runkon.v1 import types_pb2, workers_pb2
from runkon_client import (
    ActionOutput,
    Actions,
    FinalError,
    RetryableError,
    Task,
)
from runkon_client.worker import Item, ItemsTask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


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


class _Stop(BaseException):
    """As libraries raise to get past `except Exception`."""


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


FAILURES: dict[str, tuple[Callable[[], BaseException | Any], str, bool, str]] = {
    "any exception": (lambda: ValueError("broken"), "ValueError: broken", True, ""),
    "one without text": (KeyError, "KeyError", True, ""),
    "retryable": (lambda: RetryableError("later", code="BUSY"), "later", True, "BUSY"),
    "final": (lambda: FinalError("never", code="BAD"), "never", False, "BAD"),
    "sys.exit": (lambda: SystemExit(3), "SystemExit: 3", True, ""),
    "any base exception": (lambda: _Stop("far"), "_Stop: far", True, ""),
    "GeneratorExit": (GeneratorExit, "GeneratorExit", True, ""),
    "without a text to be had": (_Mute, "_Mute: its text cannot be made", True, ""),
    "an exception as message": (lambda: FinalError(KeyError("k"), code=404), "'k'", False, "404"),
    "text that cannot be sent": (lambda: ValueError("a\0b\ud800"), "ValueError: ab?", True, ""),
}


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize(("make", "message", "retryable", "code"), FAILURES.values(), ids=FAILURES)
async def test_what_an_action_raises_is_the_failure(
    *,
    is_async: bool,
    make: Callable[[], BaseException],
    message: str,
    retryable: bool,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its message; only a `FinalError` is not to be retried. The worker goes on."""
    # The log shows what was raised as it was: a lone surrogate would break the test's own report.
    caplog.set_level(logging.CRITICAL, logger="runkon_client.worker")

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


async def test_a_function_that_raises_stop_iteration_fails() -> None:
    """No future can hold that exception: the task of a plain function stayed in hand for ever."""
    async with working(one_action(lambda _: next(iter(())))) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        report = await stream.next_report()

    assert report.failure.message == "RuntimeError: the function raised StopIteration"


def _call(function: Callable[[Task], Any], task: Task) -> Any:
    return function(task)


async def test_a_plain_function_may_leave_something_to_await() -> None:
    """As a decorator of coroutine functions does; it is awaited, and can be cancelled there."""
    gone = asyncio.Event()

    async def act(task: Task) -> str:
        if task.id == "long":
            try:
                await asyncio.Event().wait()
            finally:
                gone.set()
        return "awaited"

    async with working(one_action(partial(_call, act))) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t", "long")
        done = await stream.next_report()
        cancel(stream, "long/0", workers_pb2.CANCEL_REASON_RUN_CANCELLED)
        cancelled = await stream.next_report()

    assert done.result.result_text == "awaited"
    assert cancelled.HasField("cancelled")
    assert gone.is_set()


async def test_items_may_come_one_by_one_from_a_coroutine() -> None:
    """An `async def` with `yield` is an asynchronous generator, which is no list yet."""
    actions = Actions()

    @actions.items("numbers")
    async def numbers(task: ItemsTask) -> AsyncIterator[Item]:
        for number in range(3):
            await asyncio.sleep(0)
            yield Item(id=f"{task.provider}-{number}")

    asked = workers_pb2.ItemsWork(provider="numbers")
    report = await reported(actions, lease_of(workers_pb2.TASK_KIND_ITEMS, "numbers", items=asked))

    assert [item.item_id for item in report.items.items] == ["numbers-0", "numbers-1", "numbers-2"]


async def test_progress_that_is_no_text_fails_its_task_alone() -> None:
    """It is refused where it is given: on the way out it ended all that the worker sends."""

    async def act(task: Task) -> None:
        task.heartbeat({"done": 5})  # type: ignore[arg-type] # what the test is about

    async with working(one_action(act)) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("t")
        report = await stream.next_report()

    assert report.failure.message == "TypeError: progress is a text, such as JSON, not {'done': 5}"


class _Odd(str):
    __slots__ = ()

    def replace(self, *_: object) -> str:
        raise OSError("no text after all")


async def test_a_worker_that_can_send_nothing_ends() -> None:
    """With what its writer failed of: silent, it would take tasks and answer for none."""

    async def act(task: Task) -> None:
        task.heartbeat(_Odd())
        await asyncio.Event().wait()

    async with working(one_action(act)) as (_, work, running):
        (await work.next_stream()).lease("t")

        with pytest.raises(OSError, match="no text after all"):
            await asyncio.wait_for(running, 10)
