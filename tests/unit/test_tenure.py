"""Who counts as gone, whose leases are good, when a token is given up: by clocks of ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runkon_server.runtime import tenure as tenures
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.lessor import Guard
from runkon_server.runtime.tenure import Absences, Tenure
from support.engines import until

if TYPE_CHECKING:
    import pytest

BOTH = frozenset({"a", "b"})


class Clock(SystemAmbient):
    """CLOCK_BOOTTIME as the test says it is."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def boottime_s(self) -> float:
        return self.now_s


def test_an_owner_is_gone_after_two_looks_a_second_apart() -> None:
    absences = Absences(settled_s=0.0)
    assert absences.look(10.0, BOTH, {"a"}) == set()
    assert absences.look(10.9, BOTH, {"a"}) == set()
    assert absences.look(11.0, BOTH, {"a"}) == {"b"}
    assert absences.look(12.0, BOTH, {"a"}) == {"b"}


def test_an_owner_that_is_seen_again_has_to_be_missed_anew() -> None:
    absences = Absences(settled_s=0.0)
    absences.look(10.0, BOTH, {"a"})
    assert absences.look(11.0, BOTH, BOTH) == set()
    assert absences.look(12.0, BOTH, {"a"}) == set()
    assert absences.look(13.0, BOTH, {"a"}) == {"b"}


def test_who_owns_nothing_is_forgotten() -> None:
    absences = Absences(settled_s=0.0)
    absences.look(10.0, BOTH, {"a"})
    assert absences.look(11.0, {"a"}, {"a"}) == set()
    assert absences.look(12.0, BOTH, {"a"}) == set()


def test_nobody_is_gone_before_our_own_session_has_settled() -> None:
    """After a restart of PostgreSQL everybody looks dead: the others reconnect meanwhile."""
    absences = Absences(settled_s=15.0)
    for now_s in (10.0, 11.0, 12.0, 13.0, 14.9):
        assert absences.look(now_s, BOTH, set()) == set()
    assert absences.look(15.0, BOTH, set()) == BOTH


def test_fault_8_a_suspended_machine_finds_its_leases_bad() -> None:
    """The clock of the guard runs on while the machine sleeps."""
    clock = Clock()
    guard = Guard(clock, lease_ttl_s=30.0)
    clock.now_s += 23.9
    seen = [guard.is_good]
    guard.renewed(sent_s=clock.now_s)
    clock.now_s += 8 * 3600
    seen.append(guard.is_good)
    guard.renewed(sent_s=clock.now_s)
    seen.append(guard.is_good)
    assert seen == [True, False, True]


def test_the_guard_counts_from_before_the_renewal_was_sent() -> None:
    """An answer that took long proves nothing about the time after it was sent."""
    clock = Clock()
    guard = Guard(clock, lease_ttl_s=30.0)
    sent_s = clock.now_s
    clock.now_s += 20.0
    guard.renewed(sent_s)
    clock.now_s += 3.9
    seen = [guard.is_good]
    clock.now_s += 0.2
    seen.append(guard.is_good)
    assert seen == [True, False]


class Given:
    """A tenure whose tokens are t1, t2, … and which remembers how often it gave one up."""

    def __init__(self) -> None:
        self._minted = 0
        self.ends = 0
        self.tenure = Tenure(self._mint, ended=self._ended)

    def _mint(self) -> str:
        self._minted += 1
        return f"t{self._minted}"

    def _ended(self) -> None:
        self.ends += 1


async def test_a_lock_that_is_held_again_in_time_keeps_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenures, "RELOCK_S", 0.05)
    given = Given()
    assert given.tenure.held("t1")
    given.tenure.lost()
    assert given.tenure.is_standing
    assert given.tenure.held("t1")
    await asyncio.sleep(0.1)  # what must not happen has no condition to wait for
    assert (given.tenure.token, given.ends, given.tenure.former) == ("t1", 0, set())


async def test_a_lock_that_is_not_held_again_in_time_costs_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the lock of the old one, should it come late, is not taken for that of the new one."""
    monkeypatch.setattr(tenures, "RELOCK_S", 0.0)
    given = Given()
    given.tenure.held("t1")
    given.tenure.lost()
    await until(lambda: given.ends, "the token is given up")

    assert (given.tenure.token, given.tenure.former) == ("t2", {"t1"})
    seen = [given.tenure.is_standing]
    assert not given.tenure.held("t1")
    seen.append(given.tenure.is_standing)
    assert given.tenure.held("t2")
    seen.append(given.tenure.is_standing)
    assert (seen, given.ends) == ([False, False, True], 1)


async def test_a_replica_that_never_stood_has_nothing_to_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenures, "RELOCK_S", 0.0)
    given = Given()
    given.tenure.lost()
    await asyncio.sleep(0.01)  # as above
    assert (given.tenure.token, given.ends) == ("t1", 0)
