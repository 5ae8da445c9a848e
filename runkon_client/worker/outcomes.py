"""What became of a task → the report that the server gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from runkon.v1 import types_pb2, workers_pb2
from runkon_client.calls.call import encode_span
from runkon_client.worker.actions import ActionError, ActionOutput
from runkon_client.worker.gates import Approved, Pending, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.worker.actions import ActionResult
    from runkon_client.worker.gates import GateAnswer
    from runkon_client.worker.items import Item, ItemsResult

OUTPUT_INVALID: Final = "OUTPUT_INVALID"
OUTPUT_LIMIT: Final = "OUTPUT_LIMIT"
REPORT_REFUSED: Final = "REPORT_REFUSED"
_MESSAGE_BYTES_MAX: Final = 64 << 10
_PROGRESS_BYTES_MAX: Final = 4 << 10
_REPORT_BYTES_MAX: Final = 3 << 20  # with the frame around it below the 4 MiB of a message


def report_result(task_id: str, token: str, returned: ActionResult) -> workers_pb2.TaskReport:
    """The report of an action that returned; a failure if what it returned cannot be sent."""

    def encode() -> workers_pb2.TaskReport:
        return workers_pb2.TaskReport(task_id=task_id, token=token, result=_encode(returned))

    return _encoded(task_id, token, "the action's output", encode)


def report_items(task_id: str, token: str, returned: ItemsResult) -> workers_pb2.TaskReport:
    """The report of an item provider that returned."""

    def encode() -> workers_pb2.TaskReport:
        items = workers_pb2.ItemList(items=map(_encode_item, returned))
        return workers_pb2.TaskReport(task_id=task_id, token=token, items=items)

    return _encoded(task_id, token, "the item provider's output", encode)


def report_answer(task_id: str, token: str, returned: GateAnswer) -> workers_pb2.TaskReport:
    """The report of a gate resolver that returned."""

    def encode() -> workers_pb2.TaskReport:
        answer = _encode_answer(returned)
        return workers_pb2.TaskReport(task_id=task_id, token=token, gate_answer=answer)

    return _encoded(task_id, token, "the gate resolver's answer", encode)


def _encoded(
    task_id: str, token: str, what: str, encode: Callable[[], workers_pb2.TaskReport]
) -> workers_pb2.TaskReport:
    try:
        report = encode()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        message = f"{what} cannot be sent: {error}"
        return report_failure(task_id, token, message, code=OUTPUT_INVALID, retryable=False)
    if report.ByteSize() > _REPORT_BYTES_MAX:
        message = f"{what} is {report.ByteSize()} bytes, over what a message can hold"
        return report_failure(task_id, token, message, code=OUTPUT_LIMIT, retryable=False)
    return report


def report_error(task_id: str, token: str, error: BaseException) -> workers_pb2.TaskReport:
    """The report of an action that raised; only a `FinalError` is not retried."""
    if isinstance(error, ActionError):
        return report_failure(
            task_id, token, error.message, code=error.code, retryable=error.retryable
        )
    return report_failure(task_id, token, describe(error), retryable=True)


def describe(error: BaseException) -> str:
    """The exception's type and text."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the exception's own code; the type says enough
        text = "its text cannot be made"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def report_failure(
    task_id: str, token: str, message: str, *, code: str = "", retryable: bool
) -> workers_pb2.TaskReport:
    """The report of a failure."""
    failure = workers_pb2.TaskFailure(
        message=cut_text(message, _MESSAGE_BYTES_MAX) or "failed without a message",
        retryable=retryable,
        code=cut_text(code, _MESSAGE_BYTES_MAX),
    )
    return workers_pb2.TaskReport(task_id=task_id, token=token, failure=failure)


def report_cancelled(task_id: str, token: str, message: str) -> workers_pb2.TaskReport:
    """The report of a task that was stopped because the server asked for it."""
    cancelled = workers_pb2.TaskCancelled(message=cut_text(message, _MESSAGE_BYTES_MAX))
    return workers_pb2.TaskReport(task_id=task_id, token=token, cancelled=cancelled)


def heartbeat(task_id: str, token: str, progress: str) -> workers_pb2.TaskHeartbeat:
    """A heartbeat; empty progress only keeps the lease."""
    return workers_pb2.TaskHeartbeat(
        task_id=task_id, token=token, progress=cut_text(progress, _PROGRESS_BYTES_MAX)
    )


def cut_text(text: str, bytes_max: int) -> str:
    """The text as the contract allows it: no NUL, no lone surrogates, at most so many bytes."""
    data = text.replace("\0", "").encode("utf-8", "replace")
    return data[:bytes_max].decode("utf-8", "ignore")


def _encode(returned: ActionResult) -> types_pb2.StepResult:
    match returned:
        case None:
            return types_pb2.StepResult()
        case str():
            return types_pb2.StepResult(result_text=returned)
        case ActionOutput():
            return types_pb2.StepResult(
                result_text=returned.result_text,
                markers=returned.markers,
                context=returned.context,
                structured_output=_json(returned.structured_output),
                output_file=returned.output_file,
                metadata={key: str(value) for key, value in returned.metadata.items()},
                raw_output=returned.raw_output,
            )
        case Mapping():
            return _encode_mapping(returned)
    raise TypeError(f"an action returns an ActionOutput, a mapping or a text, not {returned!r}")


def _encode_mapping(returned: Mapping[str, object]) -> types_pb2.StepResult:
    markers = returned.get("markers", ())
    context = returned.get("context", "")
    if not isinstance(markers, list | tuple) or not all(isinstance(m, str) for m in markers):
        raise TypeError("`markers` is a list of texts")
    if not isinstance(context, str):
        raise TypeError("`context` is a text")
    return types_pb2.StepResult(
        markers=markers, context=context, structured_output=_json(dict(returned))
    )


def _encode_item(item: Item) -> workers_pb2.Item:
    return workers_pb2.Item(
        item_id=item.id,
        item_type=item.type,
        item_ref=item.ref,
        context=item.context,
        depends_on=item.depends_on,
    )


def _encode_answer(answer: GateAnswer) -> workers_pb2.GateAnswer:
    match answer:
        case Approved():
            approved = workers_pb2.GateApproved(
                feedback=answer.feedback, selections=answer.selections
            )
            return workers_pb2.GateAnswer(approved=approved)
        case Rejected():
            reason = cut_text(answer.reason, _MESSAGE_BYTES_MAX) or "rejected without a reason"
            return workers_pb2.GateAnswer(rejected=workers_pb2.GateRejected(reason=reason))
        case Pending():
            pending = workers_pb2.GatePending(
                note=cut_text(answer.note, _PROGRESS_BYTES_MAX),
                delay=None if answer.delay is None else encode_span(answer.delay),
            )
            return workers_pb2.GateAnswer(pending=pending)
    raise TypeError(f"it is Approved, Rejected or Pending, not {answer!r}")


def _json(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)
