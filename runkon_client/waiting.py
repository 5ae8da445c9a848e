"""Waiting for a run's end by calls that each wait a while."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from runkon_client.calls.runs import AWAIT_S, await_run
from runkon_client.errors import Code, WaitTimeoutError
from runkon_client.retry import Backoff, RetryPolicy

if TYPE_CHECKING:
    from datetime import timedelta

    from runkon_client.calls.call import Call
    from runkon_client.calls.runs import Awaited

_PATIENT_S: Final = 1.0  # an answer sooner than this, of a run that goes on, was not waited for


class Waiting:
    """State of one `wait`: pure but for the instants it is told, of a monotonic clock."""

    def __init__(
        self, namespace: str, run_id: str, timeout: timedelta | None, *, now: float
    ) -> None:
        self._namespace = namespace
        self._run_id = run_id
        self._deadline = math.inf if timeout is None else now + timeout.total_seconds()
        self._called_at = now
        self._backoff = Backoff()

    def call(self, *, now: float) -> Call[Awaited]:
        """The next call."""
        self._called_at = now
        return await_run(self._namespace, self._run_id, min(AWAIT_S, self._deadline - now))

    def policy(self, *, now: float) -> RetryPolicy:
        """A server that is away is no reason to give up before the caller's time is over."""
        return RetryPolicy(window_s=max(0.0, self._deadline - now))

    def pause_s(self, *, now: float) -> float:
        """Seconds until the next call, after an answer that the run goes on.

        Raises:
            WaitTimeoutError: the caller's time is over.
        """
        if now >= self._deadline:
            raise WaitTimeoutError(
                f"run {self._run_id} had not ended in time", code=Code.DEADLINE_EXCEEDED
            )
        if now - self._called_at >= _PATIENT_S:
            self._backoff.reset()
            return 0.0
        return min(self._backoff.next_delay_s(), self._deadline - now)
