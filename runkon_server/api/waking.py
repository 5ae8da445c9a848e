"""What a stream sleeps on: its own flag, and one timer for all streams of a hub.

An idle stream is most of what a replica holds, so it is kept small: an `asyncio.Event` weighs
800 bytes with its queue of waiters, and a timeout of each stream as much again. A stream has one
waiter, and its heartbeat need not come to the millisecond.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final

__all__ = ["BEAT_S", "Pulse", "Wake"]

BEAT_S: Final = 0.25
"""How much sooner than asked for a wait may end."""


class Wake:
    """Like an `asyncio.Event`, for one task, whose waits end by themselves when their time comes.

    Args:
        pulse: ends the waits.
    """

    __slots__ = ("_is_set", "_pulse", "_waiter", "beat", "until_beat")

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None
        self.beat: int | None = None
        """The beat for which it is entered; for `Pulse` only."""
        self.until_beat = 0
        """The beat that ends the wait; for `Pulse` only."""

    def is_set(self) -> bool:
        """Whether it was set since it was cleared."""
        return self._is_set

    def set(self) -> None:
        """End the wait, and those to come until it is cleared."""
        self._is_set = True
        self.end_wait()

    def clear(self) -> None:
        """Let waits last again."""
        self._is_set = False

    def wait(self, until_s: float) -> asyncio.Future[None]:
        """Done when this is set, or at most `BEAT_S` before `until_s` on the loop's clock.

        A future rather than a coroutine, whose frame every idle stream would hold.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        if self._is_set:
            self._waiter.set_result(None)
        else:
            self._pulse.enter(self, int(until_s / BEAT_S))
        return self._waiter

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits."""
        return self._waiter is not None and not self._waiter.done()

    def end_wait(self) -> None:
        """Let whoever waits go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pulse:
    """One timer for many: it goes off at the beats for which somebody is entered.

    Whoever is woken before its time stays entered and is entered anew when its beat has come, so
    a busy stream costs the timer no more than an idle one.
    """

    def __init__(self) -> None:
        self._entered: dict[int, set[Wake]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_beat = 0

    def enter(self, wake: Wake, beat: int) -> None:
        """End the wait of `wake` at that beat; for `Wake` only."""
        wake.until_beat = beat
        if wake.beat is not None and wake.beat <= beat:
            return
        wake.beat = beat
        self._entered.setdefault(beat, set()).add(wake)
        if self._timer is None or beat < self._timer_beat:
            self._set_timer(beat)

    def _set_timer(self, beat: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_beat = beat
        # Without a context of its own a timer keeps that of the stream that happened to set it.
        self._timer = asyncio.get_running_loop().call_at(
            beat * BEAT_S, self._go_off, context=Context()
        )

    def _go_off(self) -> None:
        self._timer = None
        now = self._timer_beat
        for beat in [beat for beat in self._entered if beat <= now]:
            for wake in self._entered.pop(beat):
                if wake.beat == beat:  # else it was entered for a sooner one meanwhile
                    wake.beat = None
                    if wake.is_waiting:
                        self._let_go(wake, now)
        if self._entered:  # also if somebody entered anew has set it, for a beat that is not next
            self._set_timer(min(self._entered))

    def _let_go(self, wake: Wake, now: int) -> None:
        if wake.until_beat <= now:
            wake.end_wait()
        else:
            self.enter(wake, wake.until_beat)
