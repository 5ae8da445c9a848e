"""Hints between replicas: they name what became ready, fit a notification, and may all be lost."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import structlog

from runkon_server.runtime import listener
from runkon_server.runtime.backlog import Backlog
from runkon_server.runtime.hints import PAYLOADS_MAX, Lot, needs_in, requeued_hint
from runkon_server.runtime.roster import Need
from runkon_server.store.hints import PAYLOAD_BYTES_MAX, SEND_BEHIND
from support.engines import Worker, engine_on, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

BUILD = Need("default", "", "action", "build")
TEST = Need("default", "", "action", "test")
HINTERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_notify%%'"


async def know_each_other(*replicas: Engine) -> None:
    others = len(replicas) - 1
    await until(lambda: all(each.stats.peers == others for each in replicas), "they see each other")


async def have_looked(*replicas: Engine) -> None:
    """Wait until no session means to look: for what nobody told of, as new ones do, or was told."""
    dispatchers = [each._dispatcher for each in replicas]
    sessions = [session for each in dispatchers for session in each._sessions]

    def all_have() -> bool:
        told = [need for each in dispatchers for need in each._backlog]
        return not told and not any(each.may_find_more for each in sessions)

    await until(all_have, "all have looked")


def lot(**told: object) -> Lot:
    made = Lot()
    for name, value in told.items():
        setattr(made, name, value)
    return made


async def test_a_task_wakes_only_the_sessions_that_serve_it(database: str) -> None:
    """Nobody polls; the worker is on another replica, beside one that serves something else."""
    async with (
        engine_on(database, poll_s=3600.0) as owner,
        engine_on(database, poll_s=3600.0) as other,
        engine_on(database, poll_s=3600.0) as bystander,
    ):
        await know_each_other(owner, other, bystander)
        worker = Worker(other, "build").credit(8)
        Worker(other, "test").credit(8)
        auditor = Worker(bystander, "audit").credit(8)
        await owner.start_run(start("call build"))
        await owner.start_run(start("call audit"))
        await asyncio.gather(worker.lease(), auditor.lease())  # both replicas listen
        await have_looked(other, bystander)
        before = other.stats.queue_looks, bystander.stats.queue_looks

        await owner.start_run(start("call build"))
        await worker.lease(1)

        assert other.stats.queue_looks - before[0] == 1
        assert bystander.stats.queue_looks == before[1]


async def test_a_replica_that_was_alone_tells_a_new_one_at_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither polls, nor does the first one look around again to see the second."""
    monkeypatch.setattr(listener, "PROBE_S", 60.0)
    async with engine_on(database, poll_s=3600.0) as alone:
        await until(lambda: alone.database_is_up, "it has looked around")
        assert alone.stats.peers == 0
        async with engine_on(database, poll_s=3600.0) as new:
            await until(lambda: alone.stats.peers == 1, "the first one knows of the second")
            worker = Worker(new, "build").credit(1)
            await have_looked(new)
            await alone.start_run(start("call build"))
            await worker.lease()


async def test_what_another_replica_queued_again_goes_before_what_is_new(
    database: str, rogue: Rogue
) -> None:
    """Only the replica without workers looks for lost tasks; nobody polls."""
    async with (
        engine_on(database, poll_s=3600.0) as finder,
        engine_on(database, poll_s=3600.0, scan_s=3600.0) as other,
    ):
        await know_each_other(finder, other)
        worker = Worker(other, "build").credit(1)
        await other.start_run(start("call build"))
        lost = await worker.lease()
        await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
        await until(lambda: other._dispatcher._backlog.is_own(BUILD), "it hears of the lost task")

        worker.credit(1)
        assert other._dispatcher.reserve(*BUILD) is None

        again = await worker.lease(1)
        assert (again.task_id, again.delivery) == (lost.task_id, 1)
        assert (finder.stats.tasks_redelivered, other.stats.tasks_redelivered) == (1, 0)


async def test_equal_workers_share_one_look(database: str) -> None:
    """Ten sessions that serve the same: a task that is told of is looked for once, not ten times.

    And they take turns, so that the first one does not get all.
    """
    async with (
        engine_on(database, poll_s=3600.0) as owner,
        engine_on(database, poll_s=3600.0) as other,
    ):
        await know_each_other(owner, other)
        workers = [Worker(other, "build").credit(4) for _ in range(10)]
        await have_looked(other)  # else the first task is found before the hint of it comes
        looks: list[int] = []

        def have_come() -> bool:
            return sum(len(each.leases) for each in workers) == len(looks) + 1

        for _ in range(4):
            await owner.start_run(start("call build"))
            await until(have_come, "it comes")
            await have_looked(other)
            looks.append(other.stats.queue_looks)

        assert [later - earlier for earlier, later in pairwise(looks)] == [1, 1, 1]
        assert max(len(each.leases) for each in workers) == 1


async def test_steps_of_many_runs_cross_replicas_without_a_poll(
    database: str, rogue: Rogue
) -> None:
    """Each step is decided on one replica and worked on at the other: by hints alone."""
    async with (
        engine_on(database, poll_s=3600.0) as owner,
        engine_on(database, poll_s=3600.0) as other,
    ):
        await know_each_other(owner, other)
        Worker(other, "build").serve(credit=5)
        outcomes = await owner.start_runs([start("call build call build call build")] * 20)
        run_ids = [each.run_id for each in outcomes if not isinstance(each, Exception)]

        assert await rogue.all_ended(run_ids) == {"completed"}
        await rogue.assert_sound()


async def test_24_hints_are_sent_again_after_their_session_was_lost(
    database: str, rogue: Rogue
) -> None:
    """Of those that go in lots: greetings here, as everything does past a pooler."""
    async with engine_on(database) as owner:
        before: set[int] = set()

        async def are_sent() -> bool:
            owner._hints.greet()
            found = {each["pid"] for each in await rogue.rows(HINTERS)} - before
            before.update(found)
            return bool(found)

        await eventually(are_sent, "a session sends hints")
        for pid in list(before):
            await rogue.rows("SELECT pg_terminate_backend(%s)", pid)

        await eventually(are_sent, "another session sends hints")


async def test_24_hints_that_fail_behind_a_commit_are_logged_once_until_one_works(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their tasks are found by polls; what counts them sees each."""
    async with (
        engine_on(database, poll_s=60.0, lanes=1) as owner,
        engine_on(database, poll_s=0.2) as other,
    ):
        await know_each_other(owner, other)
        worker = Worker(other, "build").credit(20)

        async def queue(number: int) -> None:
            for _ in range(number):
                await owner.start_run(start("call build"))

        with structlog.testing.capture_logs() as logs:
            for statement in ("SELECT 1 / 0 FROM unnest($1::text[])", SEND_BEHIND) * 2:
                monkeypatch.setattr("runkon_server.runtime.hints.SEND_BEHIND", statement)
                await queue(3)
            await until(lambda: len(worker.leases) == 12, "all are found")

        assert owner.stats.hints_lost == 6
        assert [each["event"] for each in logs].count("hints.lost") == 2


@pytest.mark.parametrize(
    "garbage",
    ['{"e": 1}', '{"c": ["task"]}', '{"f": [["run"]]}', "[" * 7_000, "7", "no JSON"],
)
async def test_a_hint_that_nobody_understands_ends_no_replica(
    database: str, rogue: Rogue, garbage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may connect may notify; the replica goes on to hear what others say."""
    monkeypatch.setattr(listener, "PROBE_S", 60.0)
    async with engine_on(database) as engine:

        async def hears() -> bool:
            await rogue.rows("SELECT pg_notify('runkon', %s)", '{"s": "another", "h": 1}')
            return engine.stats.peers == 1

        await eventually(hears, "it listens")
        await rogue.rows("SELECT pg_notify('runkon', %s)", garbage)
        engine.stats.peers = 0

        await eventually(hears, "a hint behind it is heard")


def test_hints_fit_their_notifications() -> None:
    """300 runs of 26 letters take more than one; each names its sender, nothing is left out."""
    runs = {f"{number:026}": None for number in range(600)}
    cancels = {f"task-{number}": "deadline" for number in range(50)}
    told = lot(events=runs, facts=dict(list(runs.items())[:40]), needs={BUILD: None})
    told.cancels, told.ready_runs = cancels, True

    payloads = told.payloads("me")
    hints = [json.loads(each) for each in payloads]

    assert 1 < len(payloads) <= PAYLOADS_MAX
    assert max(map(len, payloads)) <= PAYLOAD_BYTES_MAX
    assert {hint["s"] for hint in hints} == {"me"}
    assert [run for hint in hints for run in hint.get("e", [])] == list(runs)
    assert sum(len(hint.get("f", [])) for hint in hints) == 40
    assert {k: v for hint in hints for k, v in hint.get("c", {}).items()} == cancels
    assert [need for hint in hints for need in hint.get("t", [])] == [list(BUILD)]
    assert [hint.get("r") for hint in hints].count(1) == 1


def test_too_many_hints_become_one_to_look_at_everything() -> None:
    runs = {f"{number:026}": None for number in range(10_000)}

    (payload,) = lot(events=runs, needs={BUILD: None}).payloads("me")

    assert json.loads(payload) == {"s": "me", "r": 1, "e": "*", "f": "*", "t": "*"}


def test_what_fits_no_notification_is_left_to_the_poll() -> None:
    told = lot(cancels={"task": "x" * PAYLOAD_BYTES_MAX}, facts={"run": None})

    (payload,) = told.payloads("me")

    assert json.loads(payload) == {"s": "me", "f": ["run"]}


@pytest.mark.parametrize(
    "told",
    [
        1, "*", None, [["default", "build"]], [["a"] * 9], [7], ["four"], [BUILD._asdict()],
        [["default", ["gpu"], "action", "build"]],
    ],
)  # fmt: skip
def test_hints_of_other_releases_mean_that_anything_may_be_queued(told: object) -> None:
    """Releases until now say `1`; later ones may name more than we know."""
    assert needs_in(told) is None


def test_hints_name_needs() -> None:
    assert needs_in([list(BUILD), list(TEST)]) == [BUILD, TEST]


def test_a_hint_of_tasks_that_are_queued_again_names_them_if_they_fit() -> None:
    many = [BUILD._replace(name=f"{number:0200}") for number in range(200)]

    few, everything = map(json.loads, (requeued_hint([BUILD, TEST]), requeued_hint(many)))

    assert (needs_in(few["t"]), few["o"]) == ([BUILD, TEST], 1)
    assert (needs_in(everything["t"]), everything["o"]) == (None, 1)


def test_what_is_told_during_a_look_is_looked_for_again() -> None:
    backlog = Backlog()
    backlog.add(BUILD, is_own=True)
    before = backlog.moment
    backlog.add(TEST, is_own=False)
    backlog.add(BUILD, is_own=True)

    backlog.drained(before, lambda _: True)
    assert set(backlog) == {BUILD, TEST}

    backlog.drained(backlog.moment, BUILD.__eq__)
    assert (set(backlog), backlog.is_own(BUILD)) == ({TEST}, False)


def test_only_own_tasks_are_queued_behind() -> None:
    """What another replica queued may be overtaken: a worker here has credit for both."""
    backlog = Backlog()
    backlog.add(TEST, is_own=False)
    backlog.add(BUILD, is_own=True)

    assert (backlog.is_own(TEST), backlog.is_own(BUILD)) == (False, True)
