"""When which document is checked, and what the editor is told.

The document that changed comes at once, or a moment after the last change if it is large. Those
that call it follow when typing has stopped. Between two documents other messages get their turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGE: Final = 64 * 1024
"""Characters from which on a document is not checked with every change."""
LARGE_DELAY_S: Final = 0.3
OTHERS_DELAY_S: Final = 0.3


class Checks:
    """The checks that are due."""

    def __init__(self, check: Callable[[str], None]) -> None:
        """Args:
        check: checks the document of a key and tells the editor; must not raise.
        """  # noqa: D205 - there is nothing to say before the arguments
        self._check = check
        self._changed: dict[str, asyncio.TimerHandle] = {}
        self._others: dict[str, None] = {}
        self._others_timer: asyncio.Handle | None = None

    def changed(self, key: str, length: int) -> None:
        """A document changed, and has this many characters now."""
        self.forget(key)
        if length < LARGE:
            self._check(key)
        else:
            loop = asyncio.get_running_loop()
            self._changed[key] = loop.call_later(LARGE_DELAY_S, self._check_changed, key)

    def _check_changed(self, key: str) -> None:
        del self._changed[key]
        self._check(key)

    def concerns(self, keys: Iterable[str]) -> None:
        """Other documents may have to be judged anew."""
        self._others.update(dict.fromkeys(keys))
        if self._others_timer is not None:
            self._others_timer.cancel()
        loop = asyncio.get_running_loop()
        self._others_timer = loop.call_later(OTHERS_DELAY_S, self._check_next)

    def _check_next(self) -> None:
        self._others_timer = None
        if not self._others:
            return
        key = next(iter(self._others))
        del self._others[key]
        self._check(key)
        self._others_timer = asyncio.get_running_loop().call_soon(self._check_next)

    def forget(self, key: str) -> None:
        """Do not check this document."""
        self._others.pop(key, None)
        timer = self._changed.pop(key, None)
        if timer is not None:
            timer.cancel()
