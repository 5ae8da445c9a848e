"""Identities inside a run, all derived: a decision that is made again makes the same ones.

`at` says where a step stands in the program: the section, then child numbers, and inside a loop the
pass before the child's number, such as `b.0003.0012.0001`. All numbers have the same width, so
comparing two of these texts, byte by byte, compares program order.
"""

from __future__ import annotations

from typing import Final

BODY: Final = "b"
ALWAYS: Final = "z"
"""Sorts behind the body, as the section runs behind it."""
NUMBER_MAX: Final = 9_999
"""What fits the width of a number in `at`."""


def child_at(at: str, number: int) -> str:
    """The place of a child, a branch or a pass below `at`."""
    return f"{at}.{number:04d}"


def on_fail_at(at: str) -> str:
    """The place of a call's on_fail agent: right behind the call, and no branch is ever there."""
    return at + ".f"


def step_id(run_id: str, at: str, epoch: int, attempt: int) -> str:
    """One row; a gate has the id of its step."""
    return f"{run_id}/{at}/e{epoch}/{attempt}"


def task_id(step: str, attempt: int) -> str:
    """One attempt at a step; the branches of `parallel` make several attempts on one row."""
    return f"{step}#{attempt}"


def group_id(run_id: str, at: str, epoch: int) -> str:
    """What the branches of one `parallel` block have in common."""
    return f"{run_id}/{at}/e{epoch}"


def idempotency_key(run_id: str, at: str) -> str:
    """The same for every attempt and epoch of a step."""
    return f"{run_id}/{at}"


def retry_timer(task: str) -> str:
    """The pause after one attempt; a branch of `parallel` has several on one row."""
    return task + ":retry"


def deadline_timer(step: str) -> str:
    """The end of an attempt's time."""
    return step + ":deadline"


def gate_timer(step: str) -> str:
    """The end of the time to decide a gate."""
    return step + ":gate"


def grace_timer(run_id: str, phase: str, epoch: int) -> str:
    """The end of the time that a cancelled run has for one phase."""
    return f"{run_id}:grace:{phase}/e{epoch}"


def run_of(identity: str) -> str:
    """The run that any of these ids belongs to; a run's own id gives itself."""
    return identity.partition("/")[0].partition(":")[0]
