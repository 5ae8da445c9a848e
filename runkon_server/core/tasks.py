"""Tasks as they are handed out and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import ids
from runkon_server.core.decision import AbandonTask, CancelTask, Dispatch
from runkon_server.core.facts import Outcome, Reported
from runkon_server.core.metrics import parse_metrics
from runkon_server.core.model import Completion
from runkon_server.core.outcomes import record_metrics
from runkon_server.core.outputs import interpret
from runkon_server.core.plan import ChildNode
from runkon_server.core.rows import CANCELLED_CODE
from runkon_server.core.variables import prior_contexts, task_variables

if TYPE_CHECKING:
    from typing import Any

    from runkon_server.core.model import RunState
    from runkon_server.core.plan import CallNode, Repeatable
    from runkon_server.core.scratch import Scratch

RUN_CANCELLED = "run_cancelled"
TIMEOUT = "timeout"
FAIL_FAST = "fail_fast"
NO_ERROR = ""
"""Takes back what a row shows during a pause, since columns of steps never become null."""
GIVEN_UP = "given up, because the run was cancelled"
_NO_MESSAGE = "failed without a message"
_RETRY_DELAY_MAX_S = 300.0
_JITTER = 0.2
"""The width of the band around a delay, as a part of it."""


def dispatch(
    tx: Scratch,
    node: CallNode,
    step_id: str,
    row: dict[str, Any],
    *,
    retry_error: str | None = None,
    variables: dict[str, str] | None = None,
) -> None:
    """Give an attempt at a call to a worker.

    Args:
        tx: the decision.
        node: the call.
        step_id: its row; `row` has the row's columns.
        row: with the number of the attempt in `retry_count`.
        retry_error: why the attempt before failed.
        variables: None means those of this moment.
    """
    state = tx.state
    setup, memory, attempt = state.setup, state.memory, row["retry_count"]
    tx.order(
        Dispatch(
            task_id=ids.task_id(step_id, attempt),
            step_id=step_id,
            step_name=node.name,
            action=node.name,
            iteration=row["iteration"],
            iterations=row["iterations"],
            attempt=attempt,
            retries_remaining=node.retries - attempt,
            idempotency_key=ids.idempotency_key(setup.run_id, row["at"]),
            inputs=task_variables(state) if variables is None else variables,
            prior_contexts=prior_contexts(memory),
            retry_error=retry_error,
            gate_feedback=memory.gate_feedback,
            identity=node.identity,
            max_turns=node.max_turns,
            plugin_dirs=node.plugin_dirs,
            timeout_s=node.timeout_s,
            dry_run=setup.dry_run,
            output_schema=node.output_schema,
            snippets=node.snippets,
        )
    )


def ask_to_stop(tx: Scratch, task: str, reason: str) -> None:
    """Tell the worker; the task stays in flight until it is reported or abandoned."""
    tx.order(CancelTask(task_id=task, reason=reason))


def abandon(tx: Scratch, task: str, reason: str) -> None:
    """Wait for the task no longer."""
    tx.order(AbandonTask(task_id=task, reason=reason))


def stop_late(tx: Scratch, task: str) -> None:
    """The task's time is over: tell the worker and go on without it."""
    if not tx.is_stopping():
        ask_to_stop(tx, task, TIMEOUT)
    abandon(tx, task, TIMEOUT)


def retry_delay_s(first_s: float | None, attempt: int, jitter: float) -> float | None:
    """The pause after an attempt; doubles with each. None: the next one follows at once."""
    if first_s is None:
        return None
    spread = 1 - _JITTER / 2 + _JITTER * jitter
    return float(min(first_s * 2**attempt * spread, _RETRY_DELAY_MAX_S))


def given_up(task: str) -> Reported:
    """What stands for the report of a task that was abandoned after a cancel."""
    return Reported(
        task_id=task,
        outcome=Outcome.CANCELLED,
        error=GIVEN_UP,
        error_code=CANCELLED_CODE,
        retryable=False,
    )


def failed_columns(report: Reported) -> dict[str, Any]:
    """The columns in which a report of a failure ends a row."""
    was_cancelled = report.outcome is Outcome.CANCELLED
    columns: dict[str, Any] = {
        "status": "failed",
        "step_error": report.error or ("cancelled" if was_cancelled else _NO_MESSAGE),
        "retryable": report.retryable and not was_cancelled,
    }
    code = report.error_code or (CANCELLED_CODE if was_cancelled else None)
    if code is not None:
        columns["error_code"] = code
    if report.result_text is not None:
        columns["result_text"] = report.result_text
    return columns


def completed_columns(report: Reported, metrics: dict[str, Any] | None) -> dict[str, Any]:
    """The columns in which a report of success ends a row."""
    columns: dict[str, Any] = {"status": "completed", "markers_out": report.markers}
    if report.result_text is not None:
        columns["result_text"] = report.result_text
    if report.context is not None:
        columns["context_out"] = report.context
    if report.structured_output is not None:
        columns["structured_output"] = report.structured_output
    if report.output_file is not None:
        columns["output_file"] = report.output_file
    if metrics is not None:
        columns["metrics"] = metrics
    return columns


def interpreted(node: CallNode, report: Reported) -> Reported:
    """A report as it counts, see `outputs.interpret`."""
    if report.outcome is not Outcome.COMPLETED:
        return report
    return interpret(report, node.schema, is_script=False)


def complete(tx: Scratch, step_id: str, row: dict[str, Any], report: Reported) -> Completion:
    """End the row of a step that a worker completed; its metrics count for the run."""
    metrics = parse_metrics(report.metadata) if report.metadata else None
    end_row(tx, "step_completed", step_id, row, completed_columns(report, metrics))
    record_metrics(tx, metrics)
    return Completion(
        report.context or "", report.markers, report.structured_output, report.output_file
    )


def end_row(
    tx: Scratch, kind: str, step_id: str, row: dict[str, Any], columns: dict[str, Any]
) -> None:
    """Write the columns that end a row, and tell of it."""
    tx.update_step(step_id, columns)
    tx.step_event(kind, step_id, {**row, **columns})


def no_schema(node: CallNode) -> str:
    """Why a call cannot even be started."""
    return (
        f"step `{node.name}`: its output schema `{node.output_schema}` is not stored with the "
        "workflow"
    )


def on_fail_variables(state: RunState, step: Repeatable, failure: str) -> dict[str, str]:
    """The variables of an on_fail agent, which alone is told what failed."""
    return {
        **task_variables(state),
        "failed_step": step.workflow if isinstance(step, ChildNode) else step.name,
        "failure_reason": failure,
        "retry_count": str(step.retries),
    }
