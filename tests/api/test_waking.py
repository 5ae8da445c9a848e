"""What streams sleep on: a flag each, and one timer for all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from runkon_server.api.waking import BEAT_S, Pulse, Wake

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


async def test_a_wait_ends_when_its_flag_is_set_and_at_once_if_it_was() -> None:
    """Set, waited for twice, cleared: as with an `asyncio.Event`."""
    wake = Wake(Pulse())
    waiting = wake.wait(_soon(60))
    assert not waiting.done()

    wake.set()
    assert waiting.done()
    assert wake.is_set()
    assert wake.wait(_soon(60)).done()

    wake.clear()
    assert not wake.wait(_soon(60)).done()


async def test_a_wait_ends_by_itself_no_more_than_a_beat_too_soon() -> None:
    """Nobody sets anything; the first wait's time comes after the second's, the third's never."""
    pulse = Pulse()
    late_s, soon_s = _soon(3 * BEAT_S), _soon(BEAT_S)
    late, soon, never = Wake(pulse), Wake(pulse), Wake(pulse).wait(_soon(3_600))

    async def ended_at(wake: Wake, until_s: float) -> float:
        await wake.wait(until_s)
        assert not wake.is_set()
        return _soon(0)

    late_at, soon_at = await asyncio.gather(ended_at(late, late_s), ended_at(soon, soon_s))

    assert soon_at >= soon_s - BEAT_S - 0.001  # of which loops make one with their clock
    assert late_at >= late_s - BEAT_S - 0.001
    assert not never.done()


async def test_a_wait_that_is_to_end_sooner_than_the_last_does() -> None:
    """First for an hour and cut short, then for a beat."""
    wake = Wake(Pulse())
    wake.wait(_soon(3_600))
    wake.set()
    wake.clear()

    await asyncio.wait_for(wake.wait(_soon(BEAT_S)), 60)


async def test_a_thousand_waits_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of busy streams, that wait again and again; counted where the loop gives them."""
    loop = asyncio.get_running_loop()
    timers = 0
    call_at: Callable[..., asyncio.TimerHandle] = loop.call_at

    def counted(*args: Any, **more: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*args, **more)

    monkeypatch.setattr(loop, "call_at", counted)
    pulse, until_s = Pulse(), _soon(60)
    wakes = [Wake(pulse) for _ in range(1_000)]
    for n in range(3):
        for wake in wakes:
            wake.clear()
            wake.wait(until_s + n)
            wake.set()

    assert timers == 1
    assert sum(map(len, pulse._entered.values())) == 1_000


async def test_a_busy_stream_still_gets_its_beat() -> None:
    """Woken before its first beat, it waits for a later one: the timer moves it there."""
    pulse = Pulse()
    wake = Wake(pulse)
    wake.wait(_soon(BEAT_S))
    wake.set()
    wake.clear()

    until_s = _soon(3 * BEAT_S)
    await wake.wait(until_s)

    assert _soon(0) >= until_s - BEAT_S - 0.001
    assert not pulse._entered


async def test_a_busy_stream_takes_no_other_stream_s_beat() -> None:
    """Its own beat comes first and sets the timer anew, for one long after the other's."""
    pulse = Pulse()
    busy, idle = Wake(pulse), Wake(pulse)
    busy.wait(_soon(2 * BEAT_S))
    waiting = idle.wait(_soon(4 * BEAT_S))
    busy.set()
    busy.clear()
    busy.wait(_soon(3_600))

    await asyncio.wait_for(waiting, 60)


async def test_who_went_away_is_forgotten_at_its_beat() -> None:
    """A cancelled wait is left where it is until the timer comes by."""
    pulse = Pulse()
    gone, there = Wake(pulse), Wake(pulse)

    async def wait() -> None:
        await gone.wait(_soon(BEAT_S))

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await there.wait(_soon(2 * BEAT_S))

    assert not pulse._entered


def _soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
