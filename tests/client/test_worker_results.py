"""What an action returns or raises, and what the worker reports of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from client.workers import one_action, working

from runkon.v1 import types_pb2, workers_pb2
from runkon_client import (
    ActionOutput,
    FinalError,
    RetryableError,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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
