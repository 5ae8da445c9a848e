"""Followers of real replicas: killed ones, and histories compared with the table byte for byte."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING, Any

import grpc
from sqlalchemy import text

from runkon.v1 import runs_pb2
from runkon_client import Client
from support.clusters import either, replicas
from support.live_api import live_api
from support.rows import add_events, add_run, engine_of, ulid
from support.told import as_bytes, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.live_api import LiveApi

RUN = ulid(1)
BUSY = (
    """workflow busy {
  call echo
  parallel { call echo call echo }
  gate human_approval { name = check prompt = "schön?" }
"""
    + "  call echo\n" * 300
    + "}"
)


async def test_a_replica_killed_in_mid_page_costs_no_event(database: str) -> None:
    """Of 1,200 events of 4 KiB the first hundred are handled when its replica is gone."""
    count = 1_200
    progress = ("step_progress", {"step_id": "s", "progress": "x" * 4_000})
    async with engine_of(database) as engine:
        with replicas(database, 2) as (first, second):
            async with engine.connect() as conn:
                await add_run(conn, RUN)
                done = ("run_finished", {"status": "completed"})
                await add_events(conn, RUN, *[progress] * (count - 1), done)
                await conn.execute(
                    text(
                        "UPDATE workflow_runs SET last_seq = :n, status = 'completed',"
                        " ended_at = now() WHERE id = :id"
                    ),
                    {"n": count, "id": RUN},
                )
            seen: list[int] = []
            async with Client(either(first, second)) as client:
                stream = client.run(RUN).events()
                async for event in stream:
                    seen.append(event.seq)
                    if len(seen) == 100:
                        await first.stop(signal.SIGKILL)

    assert seen == list(range(1, count + 1))
    assert stream.disconnects > 0


async def follow(
    apis: Sequence[LiveApi], run_id: str, chance: random.Random, cut: float, begin: int = 0
) -> list[bytes]:
    """Every event above a cursor, as bytes; each frame may be the last one of its stream.

    Every stream is one of any of the replicas.
    """
    seen: list[bytes] = []
    while True:
        call: Any = chance.choice(apis).runs.StreamRunEvents(
            runs_pb2.StreamRunEventsRequest(run_id=run_id, after_seq=begin + len(seen))
        )
        while (frame := await call.read()) is not grpc.aio.EOF:
            if frame.HasField("end"):
                return seen
            seen += as_bytes(frame.events.events)
            if chance.random() < cut:
                break
        call.cancel()


async def follow_feed(
    apis: Sequence[LiveApi], run_id: str, chance: random.Random, cut: float
) -> list[bytes]:
    """The events of a run out of those of the namespace, in the same way."""
    seen: list[bytes] = []
    request = runs_pb2.StreamNamespaceEventsRequest(from_start=True)
    while True:
        call: Any = chance.choice(apis).runs.StreamNamespaceEvents(request)
        while (frame := await call.read()) is not grpc.aio.EOF:
            if frame.HasField("events"):
                request.cursor = frame.events.cursor
                events = [each.event for each in frame.events.events]
                seen += as_bytes(event for event in events if event.run_id == run_id)
                if any(event.HasField("run_finished") for event in events):
                    call.cancel()
                    return seen
            if chance.random() < cut:
                break
        call.cancel()


async def test_every_history_is_the_table_byte_for_byte(database: str) -> None:
    """Live from two replicas, with and without random disconnects; then from PostgreSQL by a third.

    A run with texts beyond ASCII, steps side by side, a gate that is decided meanwhile; followed by
    itself and within its namespace, at the end by two readers of one cursor.
    """
    chance = random.Random(66)
    async with (
        live_api(database) as api,
        live_api(database) as other,
        Client(api.address) as client,
    ):
        run = await client.start_run(source=BUSY)
        both = [api, other]
        following = [
            asyncio.create_task(follow(apis, run.id, chance, cut))
            for apis, cut in (([api], 0), ([other], 0), (both, 0.3), (both, 0.9))
        ]
        following += [
            asyncio.create_task(follow_feed(both, run.id, chance, cut)) for cut in (0, 0.5)
        ]
        async for gate in client.gates.watch():
            await gate.approve(feedback="für später \u2713")
            break
        live = await asyncio.gather(*following)
        whole = await stored(api.engine.reads, run.id)
    async with live_api(database) as third:
        replayed = await asyncio.gather(
            *(follow([third], run.id, chance, cut) for cut in (0, 0.9)),
            *(follow([third], run.id, chance, cut, begin=300) for cut in (0.5, 0.5)),
        )

    assert len(whole) > 600
    assert [history == whole for history in live] == [True] * 6
    assert [history == whole for history in replayed[:2]] == [True] * 2
    assert [history == whole[300:] for history in replayed[2:]] == [True] * 2
