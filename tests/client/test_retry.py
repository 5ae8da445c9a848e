"""The retry schedule: growing, jittered, never sooner than the server asked, never for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_client import Code, RetryPolicy, RunkonClientError
from runkon_client.retry import Attempts, Backoff, is_transient


def failure(
    code: Code = Code.UNAVAILABLE, retry_after_s: float | None = None, reason: str = ""
) -> RunkonClientError:
    retry_after = None if retry_after_s is None else timedelta(seconds=retry_after_s)
    return RunkonClientError("no", code=code, reason=reason, retry_after=retry_after)


@given(
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=60),
    first_s=st.floats(0.001, 1),
    max_s=st.floats(1, 60),
)
def test_delays_double_up_to_the_maximum(
    chances: list[float], first_s: float, max_s: float
) -> None:
    """Each lies within the upper half of its ceiling."""
    draws = iter(chances)
    backoff = Backoff(first_s, max_s, chance=lambda: next(draws))

    for attempt in range(len(chances)):
        ceiling = min(max_s, first_s * 2**attempt)

        assert ceiling / 2 <= backoff.next_delay_s() <= ceiling


def test_a_reset_begins_anew() -> None:
    """After something went well."""
    backoff = Backoff(1, 60, chance=lambda: 0)
    delays = [backoff.next_delay_s() for _ in range(3)]
    backoff.reset()

    assert delays == [1, 2, 4]
    assert backoff.next_delay_s() == 1


def test_what_the_server_asks_for_is_the_least() -> None:
    """Callers that are told the same moment come spread out after it."""
    backoff = Backoff(1, 60, chance=lambda: 0.5)

    assert backoff.next_delay_s(failure(retry_after_s=5)) == 5.75


def test_the_window_ends_the_attempts() -> None:
    """No attempt begins after it; without a window there is one attempt."""
    policy = RetryPolicy(window_s=1, delay_first_s=0.4, delay_max_s=0.4)
    attempts = Attempts(policy, now=100)

    assert attempts.delay_after(failure(), now=100) is not None
    assert attempts.delay_after(failure(), now=100.95) is None
    assert Attempts(RetryPolicy(window_s=0), now=0).delay_after(failure(), now=0) is None


@pytest.mark.parametrize("code", list(Code))
def test_only_what_may_pass_is_retried(code: Code) -> None:
    """By code alone: a server that is away, an answer that did not come, a call that was cut."""
    is_retried = Attempts(RetryPolicy(), now=0).delay_after(failure(code), now=0) is not None

    assert is_retried == (code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED))


def test_an_abort_is_retried_when_the_server_says_when() -> None:
    """A version conflict has no such advice: the caller has to read again first."""
    assert is_transient(failure(Code.ABORTED, retry_after_s=0.1))
    assert not is_transient(failure(Code.ABORTED))
