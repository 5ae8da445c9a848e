"""SIGUSR1: what every task and thread of this process is waiting for, into the log.

For whoever wonders why a replica does nothing. Source lines only, never values.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from types import FrameType

log = structlog.get_logger(__name__)

FRAMES_MAX: Final = 12


def log_stacks_on_signal(loop: asyncio.AbstractEventLoop) -> None:
    """Answer SIGUSR1, which would otherwise end the process."""
    loop.add_signal_handler(signal.SIGUSR1, log_stacks)


def log_stacks() -> None:
    """Log them now; to be called in the event loop."""
    for task in asyncio.all_tasks():
        frames = [_place(frame) for frame in task.get_stack(limit=FRAMES_MAX)]
        log.info("stack.of_task", task=task.get_name(), at=frames, awaits=_awaited(task))
    current = sys._current_frames()  # noqa: SLF001 - documented, and the only way
    for thread in threading.enumerate():
        frame = current.get(thread.ident or -1)
        if frame is not None and thread is not threading.current_thread():
            frames = [
                f"{each.filename}:{each.lineno} {each.name}"
                for each in traceback.extract_stack(frame, limit=FRAMES_MAX)
            ]
            log.info("stack.of_thread", thread=thread.name, at=frames)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _awaited(task: asyncio.Task[object]) -> list[str]:
    """The coroutines that a task is in, from the outside in: `get_stack` knows the first only."""
    found: list[str] = []
    inner: object = task.get_coro()
    while inner is not None and len(found) < FRAMES_MAX:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None)
        if frame is None:
            break
        found.append(_place(frame))
        inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
    return found
