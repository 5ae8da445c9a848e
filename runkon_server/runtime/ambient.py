"""The only module that reads a clock, draws chance or mints an id; everything else gets it passed.

Two clocks on purpose: `boottime_s` judges the local guard of leases (it runs on through a
suspended machine, where CLOCK_MONOTONIC stops); what is stored uses the database's clock.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Protocol

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Ambient(Protocol):
    """The world outside, as the runtime may see it."""

    def boottime_s(self) -> float:
        """Seconds on a clock that never steps and counts suspended time."""

    def ulid(self) -> str:
        """A new ULID: 26 characters, time-ordered, unique across processes."""

    def token(self) -> str:
        """128 random bits as text, unguessable."""

    def jitter(self) -> float:
        """A number in 0…1."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemAmbient:
    """The real one."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._last_ms = 0
        self._last_low = 0

    def boottime_s(self) -> float:
        """CLOCK_BOOTTIME where there is one (Linux), else the monotonic clock."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def ulid(self) -> str:
        """Monotonic within this process, as the ULID specification allows."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms <= self._last_ms:
            self._last_low += 1
        else:
            self._last_ms = now_ms
            self._last_low = int.from_bytes(os.urandom(10)) >> 1  # head-room for the increments
        return encode_ulid(self._last_ms, self._last_low)

    def token(self) -> str:
        """From the system's generator."""
        return os.urandom(16).hex()

    def jitter(self) -> float:
        """From the system's generator."""
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        """By the event loop's clock."""
        await asyncio.sleep(seconds)


def encode_ulid(milliseconds: int, low: int) -> str:
    """48 bits of time and 80 bits of chance in Crockford's base 32.

    Source: https://github.com/ulid/spec
    """
    value = (milliseconds << 80) | low
    characters = []
    for _ in range(26):
        characters.append(_CROCKFORD[value & 31])
        value >>= 5
    return "".join(reversed(characters))
