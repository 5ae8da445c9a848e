"""Worker SDK: functions that execute the actions of runs.

worker = Worker()

@worker.action("plan")
async def plan(task: Task) -> ActionOutput:
return ActionOutput(context="what later steps are told", markers=("has_plan",))

worker.run_forever()
"""

from runkon_client.worker.actions import (
    Action,
    ActionError,
    ActionOutput,
    ActionResult,
    Actions,
    FinalError,
    RetryableError,
    TaskCancelledError,
)
from runkon_client.worker.task import CancelReason, OutputSchema, PriorContext, Snippet, Task
from runkon_client.worker.worker import Worker

__all__ = [
    "Action",
    "ActionError",
    "ActionOutput",
    "ActionResult",
    "Actions",
    "CancelReason",
    "FinalError",
    "OutputSchema",
    "PriorContext",
    "RetryableError",
    "Snippet",
    "Task",
    "TaskCancelledError",
    "Worker",
]
