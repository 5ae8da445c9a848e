"""A worker that takes every action and does nothing: for trying out workflow texts.

runkon worker examples/workers/any_action.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_client import ActionOutput, Actions

if TYPE_CHECKING:
    from runkon_client import Task

actions = Actions()


@actions.fallback
def anything(task: Task) -> ActionOutput:
    """Do nothing, well."""
    return ActionOutput(context=f"{task.action} did nothing in pass {task.iteration + 1}")
