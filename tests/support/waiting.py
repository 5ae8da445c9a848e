"""Waiting for a condition with a deadline: the only way tests synchronise with what they test."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE_S: Final = 60.0
"""How long a wait may last: it costs time only where something is broken, and a busy machine takes
ten times as long as a quiet one."""
_PAUSE_S: Final = 0.01


def wait_until(condition: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Return once `condition()` is true; fail naming `what` when it is not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(_PAUSE_S)


async def eventually(
    condition: Callable[[], Awaitable[object]], what: str, *, within_s: float = PATIENCE_S
) -> None:
    """`wait_until` for a condition that has to be awaited; the loop runs on in between."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(_PAUSE_S)


async def until(
    condition: Callable[[], object], what: str, *, within_s: float = PATIENCE_S
) -> None:
    """`wait_until` for a condition that this event loop has to bring about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(_PAUSE_S)
