"""Worker SDK: functions that execute the steps of runs.

worker = Worker()

@worker.action("plan")
async def plan(task: Task) -> ActionOutput:
    return ActionOutput(context="what later steps are told", markers=("has_plan",))

worker.run_forever()

Beside actions there are item providers (`@worker.items`), gate resolvers (`@worker.gate`) and
scripts (`worker.scripts`).
"""

from runkon_client.worker.actions import (
    Action,
    ActionError,
    ActionOutput,
    ActionResult,
    Actions,
    FinalError,
    Middleware,
    Proceed,
    RetryableError,
    TaskCancelledError,
)
from runkon_client.worker.gates import Approved, GateAnswer, GateTask, Pending, Rejected
from runkon_client.worker.items import Item, ItemsTask
from runkon_client.worker.script_tasks import ScriptTask
from runkon_client.worker.task import CancelReason, OutputSchema, PriorContext, Snippet, Task
from runkon_client.worker.worker import Worker

__all__ = [
    "Action",
    "ActionError",
    "ActionOutput",
    "ActionResult",
    "Actions",
    "Approved",
    "CancelReason",
    "FinalError",
    "GateAnswer",
    "GateTask",
    "Item",
    "ItemsTask",
    "Middleware",
    "OutputSchema",
    "Pending",
    "PriorContext",
    "Proceed",
    "Rejected",
    "RetryableError",
    "ScriptTask",
    "Snippet",
    "Task",
    "TaskCancelledError",
    "Worker",
]
