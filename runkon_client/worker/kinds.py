"""What differs between kinds of tasks: what the function gets, and how its answer is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runkon.v1 import workers_pb2
from runkon_client.worker.gates import GateTask
from runkon_client.worker.items import ItemsTask
from runkon_client.worker.outcomes import report_answer, report_items, report_result
from runkon_client.worker.script_tasks import ScriptTask
from runkon_client.worker.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.worker.actions import Actions, Registered


class Kind(NamedTuple):
    """One kind of task."""

    task: type[Task]
    find: Callable[[Actions, workers_pb2.TaskLease], Registered | None]
    report: Callable[[str, str, Any], workers_pb2.TaskReport]
    """From the task's id, its token and what the function returned."""
    name: str
    """For people."""


KINDS: Final = {
    workers_pb2.TASK_KIND_ACTION: Kind(
        Task, lambda actions, lease: actions.find(lease.action), report_result, "action"
    ),
    workers_pb2.TASK_KIND_SCRIPT: Kind(
        ScriptTask, lambda actions, _: actions.find_scripts(), report_result, "script"
    ),
    workers_pb2.TASK_KIND_ITEMS: Kind(
        ItemsTask,
        lambda actions, lease: actions.find_items(lease.items.provider),
        report_items,
        "item provider",
    ),
    workers_pb2.TASK_KIND_GATE: Kind(
        GateTask,
        lambda actions, lease: actions.find_gate(lease.gate_poll.gate_type),
        report_answer,
        "gate type",
    ),
}
UNKNOWN: Final = Kind(Task, lambda *_: None, report_result, "work of an unknown kind, such as")
"""Of a newer server: nothing can be done about it, and it says so."""
