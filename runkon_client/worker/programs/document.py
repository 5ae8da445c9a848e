"""A task as a document, for programs and services that do not speak the contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_client.worker.task import PriorContext, Task

INPUT_PREFIX: Final = "RUNKON_INPUT_"
"""Of inputs in an environment; scripts have the same inputs as `RUNKON_…`, without `INPUT_`."""
_VARIABLE_BYTES_MAX: Final = (128 << 10) - 1  # with its name: Linux takes no more
_ENVIRONMENT_BYTES_MAX: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_]+", re.ASCII)


async def describe(task: Task) -> dict[str, Any]:
    """The task as values of JSON; what earlier steps told is fetched if it did not come along.

    Raises:
        RunkonClientError: the contexts cannot be fetched.
    """
    schema = task.output_schema
    return {
        "action": task.action,
        "inputs": dict(task.inputs),
        "namespace": task.namespace,
        "run_id": task.run_id,
        "workflow": task.workflow_name,
        "step_id": task.step_id,
        "step_name": task.step_name,
        "task_id": task.id,
        "iteration": task.iteration,
        "iterations": list(task.iterations),
        "attempt": task.attempt,
        "delivery": task.delivery,
        "retries_remaining": task.retries_remaining,
        "retry_error": task.retry_error,
        "idempotency_key": task.idempotency_key,
        "fence": task.fence,
        "dry_run": task.dry_run,
        "deadline_time": None if task.deadline is None else task.deadline.isoformat(),
        "gate_feedback": task.gate_feedback,
        "identity": task.identity,
        "max_turns": task.max_turns,
        "plugin_dirs": list(task.plugin_dirs),
        "snippets": [{"name": each.name, "text": each.text} for each in task.snippets],
        "output_schema": (
            None if schema is None else {"name": schema.name, "source": schema.source}
        ),
        "prior_contexts": [_context(each) for each in await task.fetch_prior_contexts()],
    }


def _context(each: PriorContext) -> dict[str, Any]:
    return {
        "step": each.step,
        "iteration": each.iteration,
        "context": each.context,
        "markers": list(each.markers),
        "structured_output": each.structured_output,
        "output_file": each.output_file,
    }


def variables_of(task: Task) -> dict[str, str]:
    """The task as variables of an environment, `RUNKON_…`.

    Inputs are left out whose names cannot be variables, and those of `large_inputs`. Standard input
    has them all.
    """
    variables = {
        "RUNKON_ACTION": task.action,
        "RUNKON_NAMESPACE": task.namespace,
        "RUNKON_RUN_ID": task.run_id,
        "RUNKON_WORKFLOW": task.workflow_name,
        "RUNKON_STEP_NAME": task.step_name,
        "RUNKON_TASK_ID": task.id,
        "RUNKON_ITERATION": str(task.iteration),
        "RUNKON_ATTEMPT": str(task.attempt),
        "RUNKON_IDEMPOTENCY_KEY": task.idempotency_key,
        "RUNKON_FENCE": str(task.fence),
        "RUNKON_DRY_RUN": "true" if task.dry_run else "false",
        "RUNKON_IDENTITY": task.identity,
    }
    if task.max_turns is not None:
        variables["RUNKON_MAX_TURNS"] = str(task.max_turns)
    return variables | _inputs(task.inputs).small


def large_inputs(task: Task) -> dict[str, str]:
    """The inputs that an environment has no room for, by the names of their variables.

    That is one that with its name is over 128 KiB, those with which all would be over 1 MiB, and
    one with a NUL in it.
    """
    return _inputs(task.inputs).large


class _Inputs(NamedTuple):
    small: dict[str, str]
    large: dict[str, str]


def _inputs(inputs: Mapping[str, str]) -> _Inputs:
    found = _Inputs({}, {})
    room = _ENVIRONMENT_BYTES_MAX
    for name, value in inputs.items():
        if not _NAME.fullmatch(name):
            continue
        variable = INPUT_PREFIX + name.upper()
        size = len(variable) + len(value.encode("utf-8", "replace")) + 2
        if "\0" in value or size > min(_VARIABLE_BYTES_MAX, room):
            found.large[variable] = value
        else:
            room -= size
            found.small[variable] = value
    return found
