"""What a replica holds of its machine comes back when the load is over."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from runkon_client import Actions, Client, RunSpec, StartedRun
from runkon_client.values import GateState, RunStatus
from runkon_server.api.health import ask_health
from support.clusters import replicas, rows, working
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_client import Task
    from support.clusters import Replica

RUNS: Final = 10
SOURCE: Final = """workflow w {
  call tick gate human_review { name = check } parallel { call tick call tick }
}"""
SPARE: Final = 2
"""Descriptors and tasks that may be there at one moment and not at another."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process has, and what it has in the database."""

    descriptors: int
    threads: int
    tasks: int
    sessions: int
    memory_kib: int

    def is_no_more_than(self, other: Holdings) -> bool:
        """Whether nothing but a tenth of the memory, and what comes and goes, is more here."""
        return (
            self.descriptors <= other.descriptors + SPARE
            and self.threads <= other.threads
            and self.tasks <= other.tasks + SPARE
            and self.sessions <= other.sessions
            and self.memory_kib <= other.memory_kib * 1.1
        )


async def held(replica: Replica, database: str) -> Holdings:
    """Ask the system, the replica's own log for its tasks, and PostgreSQL for its sessions."""
    process = Path(f"/proc/{replica.server.process.pid}")
    before = len(replica.server.records("stack.of_task"))
    threads_before = len(replica.server.records("stack.of_thread"))
    replica.server.process.send_signal(signal.SIGUSR1)

    async def has_told() -> bool:  # threads are told of last
        return len(replica.server.records("stack.of_thread")) > threads_before

    await eventually(has_told, "the replica tells of its tasks")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    ((sessions,),) = await asyncio.to_thread(
        rows,
        database,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return Holdings(
        descriptors=len(list((process / "fd").iterdir())),
        threads=int(status["Threads"]),
        tasks=len(replica.server.records("stack.of_task")) - before,
        sessions=sessions,
        memory_kib=int(status["VmRSS"].split()[0]),
    )


async def load(address: str) -> None:
    """Runs to their end; readers that stay, readers that go, callers that give up, a worker."""
    actions = Actions()

    @actions.action("tick")
    async def tick(task: Task) -> None:
        task.heartbeat(f"at {task.step_name}")

    async with working(address, actions), Client(address) as client, Client(address) as other:
        started = await client.start_runs([RunSpec(source=SOURCE)] * RUNS)
        ids = [run.id for run in started if isinstance(run, StartedRun)]
        readers = [asyncio.create_task(read(other, run_id)) for run_id in ids]
        waiting = [asyncio.create_task(client.run(run_id).wait()) for run_id in ids]
        for run_id in ids[::2]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await other.run(run_id).wait()
            stream = other.run(run_id).events()
            await anext(stream)  # and it is left alone

        async def all_wait() -> bool:
            pending = client.gates(state=GateState.PENDING)
            return len([gate async for gate in pending]) == len(ids)

        await eventually(all_wait, "every gate is open")
        await asyncio.gather(*(client.run(run_id).gate("check").approve() for run_id in ids))
        ended = await asyncio.gather(*waiting)
        seen = await asyncio.gather(*readers)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert seen == [run.last_seq for run in ended]


async def read(client: Client, run_id: str) -> int:
    """Follow a run to its end; how many events it has."""
    count = 0
    async for _ in client.run(run_id).events():
        count += 1
    return count


async def test_l6_what_a_replica_holds_comes_back_after_load(database: str) -> None:
    """Two rounds fill caches and pools; three more of the same leave nothing more behind."""
    with replicas(database) as (one,):
        for _ in range(2):
            await load(one.address)
        before = settled = await held(one, database)
        for _ in range(3):
            await load(one.address)

        async def is_back() -> bool:
            nonlocal settled
            settled = await held(one, database)
            return settled.is_no_more_than(before)

        try:
            await eventually(is_back, "all is given back")
        except AssertionError as error:
            raise AssertionError(f"{before} became {settled}") from error


async def test_42_without_free_descriptors_those_who_are_connected_are_served(
    database: str,
) -> None:
    """Strangers knock in vain; a run goes through its gate; with descriptors again they get in."""
    with replicas(database) as (one,), contextlib.ExitStack() as strangers:
        process = one.server.process.pid
        actions = Actions()

        @actions.action("tick")
        async def tick(task: Task) -> None:
            task.heartbeat("here")

        async with working(one.address, actions), Client(one.address) as client:
            await client.start_run(source="workflow w { call tick }")
            run = await client.start_run(source=SOURCE)
            await first_gate(client, run.id)
            limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
            taken = (await held(one, database)).descriptors
            resource.prlimit(process, resource.RLIMIT_NOFILE, (taken + 3, limits[1]))
            host, _, port = one.address.rpartition(":")
            for _ in range(30):
                strangers.enter_context(socket.create_connection((host, int(port))))
            with pytest.raises(grpc.RpcError):
                await asyncio.to_thread(ask_health, one.address, timeout_s=1)
            await client.run(run.id).gate("check").approve()
            ended = await client.run(run.id).wait()
            strangers.close()
            resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
            assert await asyncio.to_thread(ask_health, one.address, timeout_s=30) == "SERVING"

        assert ended.status is RunStatus.COMPLETED
        assert one.server.records("loop.failed") == []
        assert await one.stop(signal.SIGTERM) == 0


async def first_gate(client: Client, run_id: str) -> None:
    """Return when the run waits at its gate."""

    async def waits() -> bool:
        return (await client.run(run_id).get()).status is RunStatus.WAITING

    await eventually(waits, "the run waits")
