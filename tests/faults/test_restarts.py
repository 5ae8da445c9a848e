"""PostgreSQL goes away under work and comes back: nothing acknowledged is lost (S3, L7)."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest

from runkon_client import Actions, Client
from runkon_client.errors import UnavailableError
from runkon_client.values import RunStatus
from runkon_server.api.health import ask_health
from support.clusters import replicas, rows, working
from support.engines import until
from support.postmasters import FAST, IMMEDIATE, Postmaster
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client import Task
    from support.clusters import Replica

pytestmark = pytest.mark.faults

SOURCE = "workflow w { call work call work call work }"
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""


def crash(server: Postmaster) -> None:
    """Fault 9: as `pg_ctl -m immediate restart`."""
    server.restart(IMMEDIATE)


def restart(server: Postmaster) -> None:
    """Fault 10: as `pg_ctl -m fast restart`."""
    server.restart(FAST)


def kill_the_postmaster(server: Postmaster) -> None:
    """Fault 9, the hard way: its children find out by themselves."""
    server.restart(signal.SIGKILL)


def terminate_all_backends(server: Postmaster) -> None:
    """Fault 12, three times in a row."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        for _ in range(3):
            conn.execute(TERMINATE)


def check(address: str) -> str:
    """What the replica says of itself."""
    try:
        return ask_health(address, timeout_s=30)
    except grpc.RpcError as error:
        return error.code().name


async def becomes(replica: Replica, status: str) -> None:
    """Return once the replica says so."""

    async def says_so() -> bool:
        return await asyncio.to_thread(check, replica.address) == status

    await eventually(says_so, f"the replica is {status}")


async def start_steadily(client: Client, acked: list[str], stop: asyncio.Event) -> None:
    """Start run after run; what is answered is remembered, what fails is asked again later."""
    while not stop.is_set():
        try:
            acked.append((await client.start_run(source=SOURCE)).id)
        except UnavailableError:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(crash, id="9-crash"),
        pytest.param(kill_the_postmaster, id="9-postmaster-killed"),
        pytest.param(restart, id="10-restart"),
        pytest.param(terminate_all_backends, id="12-backends-terminated"),
    ],
)
async def test_9_10_12_what_was_acknowledged_survives_and_goes_on(
    postmaster: Postmaster, database: str, fault: Callable[[Postmaster], None]
) -> None:
    """Runs are started and worked on all the while; every one ends, its stream without a gap."""
    actions = Actions()

    @actions.action("work")
    async def work(task: Task) -> str:
        return task.id

    acked: list[str] = []
    stop = asyncio.Event()
    with replicas(database, 2) as (one, other):
        async with Client(one.address) as client, working(other.address, actions):
            starting = asyncio.create_task(start_steadily(client, acked, stop))
            await until(lambda: len(acked) >= 5, "runs are started")
            stream = client.run(acked[0]).events()
            await asyncio.to_thread(fault, postmaster)
            before = len(acked)
            await becomes(one, "SERVING")
            await becomes(other, "SERVING")
            await until(lambda: len(acked) >= before + 5, "runs are started again")
            stop.set()
            await starting
            ended = await asyncio.gather(*(client.run(each).wait() for each in acked))
            told = [event.seq async for event in stream]

        assert {run.status for run in ended} == {RunStatus.COMPLETED}
        assert told == [*range(1, len(told) + 1)]
        assert one.server.process.poll() is None
        assert other.server.process.poll() is None
    stored = {run_id for (run_id,) in rows(database, "SELECT id FROM workflow_runs")}
    assert set(acked) <= stored


async def test_10_l7_readiness_follows_the_database(postmaster: Postmaster, database: str) -> None:
    """Not ready while it is away, alive all along, ready again untouched."""
    with replicas(database) as (one,):
        await becomes(one, "SERVING")
        await asyncio.to_thread(postmaster.stop, IMMEDIATE)
        await becomes(one, "NOT_SERVING")
        assert ask_health(one.address, "runkon.liveness", timeout_s=30) == "SERVING"
        await asyncio.to_thread(postmaster.start)
        await becomes(one, "SERVING")
        assert one.server.records("loop.failed") == []
