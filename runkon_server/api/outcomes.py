"""What a worker reports, checked: a report that breaks a limit becomes a step that failed cleanly.

A bad result must not be refused: the worker would have nothing better to report, its lease would
end, and the task would be handed out again for ever.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

from runkon_server.api.answers import (
    OUTPUT_INVALID,
    OUTPUT_LIMIT,
    BadOutputError,
    parse_decision,
    parse_items,
    parse_look,
    short,
)
from runkon_server.core.facts import GatePolled, Outcome, Reported
from runkon_server.runtime.commands import TaskHeartbeat, TaskReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runkon.v1 import types_pb2, workers_pb2
    from runkon_server.core.facts import ItemsCollected
    from runkon_server.runtime.commands import TaskLease

__all__ = [
    "OUTPUT_INVALID",
    "OUTPUT_LIMIT",
    "parse_heartbeat",
    "parse_report",
    "short_progress",
    "too_heavy",
]

INPUT_LIMIT: Final = "INPUT_LIMIT"
OUTPUT_BYTES_MAX: Final = 1024 * 1024
MARKERS_MAX: Final = 100
MARKER_BYTES_MAX: Final = 128
METADATA_MAX: Final = 64
OUTPUT_FILE_BYTES_MAX: Final = 4096
JSON_DEPTH_MAX: Final = 64
MESSAGE_BYTES_MAX: Final = 64 * 1024
CODE_BYTES_MAX: Final = 128
PROGRESS_BYTES_MAX: Final = 4 * 1024
_UTF8_BYTES_MAX: Final = 4
_NO_MESSAGE: Final = "the worker gave no reason"


def parse_report(
    report: workers_pb2.TaskReport, jitter: Callable[[], float], principal: str = ""
) -> TaskReport:
    """The report as the engine takes it.

    Args:
        report: with task, token and outcome.
        jitter: a number in 0…1, drawn for failures, whose retry it spreads.
        principal: who reports; a gate that a look decides is decided in this name.
    """
    data = report.SerializeToString(deterministic=True)
    fact = _fact(report, data, jitter)
    decision = None
    if isinstance(fact, GatePolled):
        decision = parse_decision(report.task_id, report.gate_answer, principal)
    return TaskReport(
        token=report.token,
        fact=fact,
        digest=hashlib.sha256(data).hexdigest(),
        gate_decision=decision,
    )


def _fact(
    report: workers_pb2.TaskReport, data: bytes, jitter: Callable[[], float]
) -> Reported | ItemsCollected | GatePolled:
    task_id = report.task_id
    match report.WhichOneof("outcome"):
        case "result":
            return _completed(task_id, report.result, data)
        case "failure":
            return _failed(task_id, report.failure, jitter)
        case "items":
            return _collected(task_id, report.items)
        case "gate_answer":
            return _looked(task_id, report.gate_answer)
        case _:
            return Reported(
                task_id=task_id,
                outcome=Outcome.CANCELLED,
                error=short(report.cancelled.message, MESSAGE_BYTES_MAX) or None,
            )


def parse_heartbeat(beat: workers_pb2.TaskHeartbeat) -> TaskHeartbeat:
    """The heartbeat as the engine takes it."""
    return TaskHeartbeat(task_id=beat.task_id, token=beat.token, progress=beat.progress)


def short_progress(text: str) -> str:
    """As much of a worker's word as is recorded."""
    return short(text, PROGRESS_BYTES_MAX)


def too_heavy(lease: TaskLease, size: int) -> TaskReport:
    """The report that the server makes for a worker who cannot be told of the task at all."""
    fact = Reported(
        task_id=lease.task_id,
        outcome=Outcome.FAILED,
        error=f"the variables of the step weigh {size} bytes, too much for a message",
        error_code=INPUT_LIMIT,
        retryable=False,
    )
    return TaskReport(token=lease.token, fact=fact, digest=INPUT_LIMIT)


def _completed(task_id: str, result: types_pb2.StepResult, data: bytes) -> Reported:
    """The result as a fact, or the failure that it amounts to. `data` is the report encoded."""
    structured_output = result.structured_output
    markers = tuple(result.markers)
    metadata = dict(result.metadata) if result.metadata else {}
    try:
        _check_counts(markers, metadata)
        if len(data) > MARKER_BYTES_MAX:
            _check_sizes(result, markers, len(data))
        # The encoding of a message without empty texts has no zero bytes of its own, so this
        # spares nearly every report the look at each text.
        if b"\0" in data and any("\0" in text for text in _texts(result)):
            raise BadOutputError(OUTPUT_INVALID, "the output holds a NUL character")
        if structured_output:
            _check_json(structured_output)
        if result.raw_output and (structured_output or markers or result.context):
            raise BadOutputError(
                OUTPUT_INVALID, "`raw_output` came with what was to be read from it"
            )
    except BadOutputError as bad:
        return _unusable(task_id, bad)
    return Reported(
        task_id=task_id,
        outcome=Outcome.COMPLETED,
        result_text=result.result_text or None,
        context=result.context or None,
        markers=markers,
        structured_output=structured_output or None,
        output_file=result.output_file or None,
        raw_output=result.raw_output or None,
        metadata=metadata,
    )


def _collected(task_id: str, found: workers_pb2.ItemList) -> ItemsCollected | Reported:
    try:
        return parse_items(task_id, found)
    except BadOutputError as bad:
        return _unusable(task_id, bad)


def _looked(task_id: str, answer: workers_pb2.GateAnswer) -> GatePolled | Reported:
    try:
        return parse_look(task_id, answer)
    except BadOutputError as bad:
        return _unusable(task_id, bad)


def _unusable(task_id: str, bad: BadOutputError) -> Reported:
    code, message = bad.args
    return Reported(
        task_id=task_id, outcome=Outcome.FAILED, error=message, error_code=code, retryable=False
    )


def _failed(
    task_id: str, failure: workers_pb2.TaskFailure, jitter: Callable[[], float]
) -> Reported:
    return Reported(
        task_id=task_id,
        outcome=Outcome.FAILED,
        error=short(failure.message, MESSAGE_BYTES_MAX) or _NO_MESSAGE,
        error_code=short(failure.code, CODE_BYTES_MAX) or None,
        retryable=failure.retryable if failure.HasField("retryable") else True,
        jitter=jitter(),
    )


def _check_counts(markers: Sequence[str], metadata: Mapping[str, str]) -> None:
    if len(markers) > MARKERS_MAX:
        raise _too_much("markers", len(markers), MARKERS_MAX)
    if len(metadata) > METADATA_MAX:
        raise _too_much("entries of metadata", len(metadata), METADATA_MAX)


def _check_sizes(result: types_pb2.StepResult, markers: Sequence[str], encoded: int) -> None:
    for marker in markers:
        if (size := _size(marker, MARKER_BYTES_MAX)) > MARKER_BYTES_MAX:
            raise _too_much("bytes in a marker", size, MARKER_BYTES_MAX)
    if encoded <= OUTPUT_FILE_BYTES_MAX:
        return
    if (size := _size(result.output_file, OUTPUT_FILE_BYTES_MAX)) > OUTPUT_FILE_BYTES_MAX:
        raise _too_much("bytes in `output_file`", size, OUTPUT_FILE_BYTES_MAX)
    if encoded <= OUTPUT_BYTES_MAX:
        return
    if (size := sum(len(text.encode()) for text in _texts(result))) > OUTPUT_BYTES_MAX:
        raise _too_much("bytes of output", size, OUTPUT_BYTES_MAX)


def _check_json(text: str) -> None:
    """Raise unless the text is JSON that every reader of it can take."""
    try:
        value = _JSON.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as reason:
        raise BadOutputError(OUTPUT_INVALID, f"`structured_output` is not JSON: {reason}") from None
    if text.count("[") + text.count("{") > JSON_DEPTH_MAX and _depth(value) > JSON_DEPTH_MAX:
        raise _too_deep()
    if "\\u" in text:
        _check_escapes(value)


def _check_escapes(value: object) -> None:
    """Raise if an escape stands for NUL or for half a character."""
    plain = json.dumps(value, ensure_ascii=False)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise BadOutputError(
            OUTPUT_INVALID, "`structured_output` holds half of a surrogate pair"
        ) from None
    # Of all ways to write NUL, this is the only one that `dumps` uses; `\\u0000` is a text.
    if "\\u0000" in plain.replace("\\\\", ""):
        raise BadOutputError(OUTPUT_INVALID, "`structured_output` holds a NUL character")


def _depth(value: object) -> int:
    """How deep lists and objects are nested; stops counting beyond the limit."""
    level: list[object] = [value]
    depth = 0
    while depth <= JSON_DEPTH_MAX:
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return depth
        depth += 1
        level = [
            inner
            for item in nested
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _texts(result: types_pb2.StepResult) -> Iterable[str]:
    yield result.result_text
    yield result.context
    yield result.structured_output
    yield result.output_file
    yield result.raw_output
    yield from result.markers
    for name, value in result.metadata.items():
        yield name
        yield value


def _size(text: str, limit: int) -> int:
    """Bytes of a text; an estimate from below is enough where it cannot reach the limit."""
    length = len(text)
    return length if length * _UTF8_BYTES_MAX <= limit else len(text.encode())


def _too_much(what: str, size: int, limit: int) -> BadOutputError:
    return BadOutputError(OUTPUT_LIMIT, f"{size} {what}, at most {limit} are allowed")


def _too_deep() -> BadOutputError:
    return BadOutputError(
        OUTPUT_LIMIT, f"`structured_output` is nested more than {JSON_DEPTH_MAX} deep"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


_JSON: Final[Any] = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
