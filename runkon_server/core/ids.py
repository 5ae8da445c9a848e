"""Identities inside a run, all derived: a decision that is made again makes the same ones.

`at` says where a step stands in the program: the section, then child numbers, and inside a loop the
pass before the child's number, such as `b.0003.0012.0001`. All numbers have the same width, so
comparing two of these texts, byte by byte, compares program order.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

BODY: Final = "b"
ALWAYS: Final = "z"
"""Sorts behind the body, as the section runs behind it."""
NUMBER_MAX: Final = 9_999
"""What fits the width of a number in `at`."""
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_LENGTH: Final = 10
"""Characters of a ULID that are its time; the other 16 are 80 bits of anything."""


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


def item_id(step: str, ordinal: int) -> str:
    """One item of a foreach."""
    return f"{step}/{ordinal}"


def child_run_id(identity: str) -> str:
    """The child run of a step, or of an item: a ULID that is derived.

    Its time is that of the parent, so a whole tree of runs lies in one partition; what follows is
    a hash of the step's or item's id, which names parent, place, epoch, attempt and ordinal.
    """
    number = int.from_bytes(blake2b(identity.encode(), digest_size=10).digest())
    digits = [_CROCKFORD[number >> shift & 31] for shift in range(75, -1, -5)]
    return run_of(identity)[:_TIME_LENGTH] + "".join(digits)


def poll_timer(task: str) -> str:
    """The pause after a look at a gate that did not decide it."""
    return task + ":poll"


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


def is_in_always(step: str) -> bool:
    """Whether a step, or what belongs to one, is in the always section."""
    return step.partition("/")[2].startswith(ALWAYS)
