"""Two releases on one schema (44), and migrations that are interrupted or meet each other (45)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from runkon_client import Actions, Client
from runkon_client.values import Run, RunStatus
from runkon_server.store.migrations import current_revision, head_revision, upgrade
from support.clusters import Replica, rows, working
from support.engines import until
from support.releases import extract_previous
from support.servers import runkon_server
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runkon_client import Task
    from support.postmasters import Postmaster

pytestmark = pytest.mark.faults

SERVE = ("serve", "--listen", "127.0.0.1:0", "--lease-ttl", "3")
SOURCE = """workflow w {
  call work
  gate human_approval { name = go }
  parallel { call work { as = left } call work { as = right } }
  call work { as = last }
}"""


@contextlib.contextmanager
def serving(database: str, environment: dict[str, str]) -> Iterator[Replica]:
    with runkon_server(SERVE, {"RUNKON_DATABASE_URL": database, **environment}) as server:
        yield Replica(server, server.started())


async def test_44_the_release_before_works_beside_this_one(database: str, tmp_path: Path) -> None:
    """Runs of either are continued by the other; the old one restarts on the newest schema.

    First the new replica is drained and the old one goes on alone, then the other way round.
    """
    name, old_packages = extract_previous(tmp_path)
    old, new = dict(old_packages), dict[str, str]()
    with runkon_server(["migrate"], {"RUNKON_DATABASE_URL": database, **old}) as migrating:
        assert migrating.ended() == 0, (name, migrating.said)
    assert current_revision(database) == head_revision()

    begun = await begin_runs(database, (old, new), stop_first=new)
    ended = await finish_runs(database, old, begun[:3])
    ended += await finish_runs(database, new, begun[3:])
    begun = await begin_runs(database, (new, old), stop_first=old)
    ended += await finish_runs(database, new, begun)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    broken = rows(
        database,
        """SELECT r.id FROM workflow_runs r LEFT JOIN run_events e ON e.run_id = r.id
           GROUP BY r.id HAVING count(e) <> r.last_seq OR max(e.seq) <> r.last_seq""",
    )
    assert broken == []
    assert rows(database, "SELECT DISTINCT state FROM tasks") == [("done",)]


def work_for_all() -> Actions:
    actions = Actions()

    @actions.action("work")
    async def work(task: Task) -> str:
        return task.id

    return actions


async def begin_runs(
    database: str, environments: tuple[dict[str, str], ...], *, stop_first: dict[str, str]
) -> list[str]:
    """Start six runs, three on each replica, bring them to their gates, end the replicas in turn.

    The worker is at the replica that stays longer.
    """
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(serving(database, each)) for each in environments)
        leaves, stays = (first, second) if environments[0] is stop_first else (second, first)
        async with (
            Client(leaves.address) as one,
            Client(stays.address) as other,
            working(stays.address, work_for_all()),
        ):
            begun = [(await each.start_run(source=SOURCE)).id for each in (one, other) * 3]
            assert await leaves.stop(signal.SIGTERM) == 0
            await until(lambda: all_wait(database, begun), "all runs wait at their gates")
        assert await stays.stop(signal.SIGTERM) == 0
    return begun


def all_wait(database: str, run_ids: list[str]) -> bool:
    found = "SELECT count(*) FROM gates WHERE state = 'pending' AND run_id = ANY(%s)"
    return rows(database, found, run_ids) == [(len(run_ids),)]


async def finish_runs(database: str, environment: dict[str, str], run_ids: list[str]) -> list[Run]:
    """Approve and await runs on a replica of this environment."""
    with serving(database, environment) as replica:
        async with Client(replica.address) as client, working(replica.address, work_for_all()):
            for run_id in run_ids:
                await client.run(run_id).gate("go").approve()
            return await asyncio.gather(*(client.run(run_id).wait() for run_id in run_ids))


@pytest.fixture
def bare_database(postmaster: Postmaster) -> Iterator[str]:
    """A database that no migration has touched."""
    postmaster.execute("CREATE DATABASE bare TEMPLATE template0")
    yield postmaster.dsn("bare")
    postmaster.execute("DROP DATABASE bare WITH (FORCE)")


def test_45_a_migration_that_is_killed_is_taken_up_by_three_at_once(bare_database: str) -> None:
    """`kill -9` while a step waits for a lock inside its transaction; nothing of it stays."""
    upgrade(bare_database, "0002")
    environment = {"RUNKON_DATABASE_URL": bare_database}
    with psycopg.connect(bare_database) as user:
        user.execute("LOCK TABLE workflow_runs IN ACCESS SHARE MODE")
        user.execute("LOCK TABLE workflow_run_steps IN ACCESS SHARE MODE")
        user.execute("LOCK TABLE tasks IN ACCESS SHARE MODE")
        with runkon_server(["migrate"], environment) as doomed:
            wait_until(lambda: waits_for_lock(bare_database), "a step waits")
            doomed.stop(signal.SIGKILL)
        wait_until(lambda: not waits_for_lock(bare_database), "the server notices")
    assert current_revision(bare_database) == "0002"

    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(runkon_server(["migrate"], environment)) for _ in range(3)]
        assert [each.ended(60) for each in three] == [0, 0, 0]

    assert current_revision(bare_database) == head_revision()


def waits_for_lock(database: str) -> bool:
    return bool(
        rows(
            database,
            """SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
               AND datname = current_database() AND query LIKE '%ALTER TABLE%'""",
        )
    )
