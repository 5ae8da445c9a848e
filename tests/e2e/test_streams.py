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
from runkon_server.api.events import render_event
from runkon_server.store.reads.events import EventRow
from support.clusters import either, replicas
from support.live_api import LiveApi, live_api
from support.rows import add_events, add_run, engine_of, ulid

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

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
ROWS = f"SELECT {', '.join(EventRow._fields)} FROM run_events WHERE run_id = :id ORDER BY seq"


async def stored(engine: AsyncEngine, run_id: str) -> list[bytes]:
    """What the table says, built the long way and encoded by protobuf."""
    async with engine.connect() as conn:
        rows = [EventRow(*row) for row in await conn.execute(text(ROWS), {"id": run_id})]
    return [render_event(row).SerializeToString(deterministic=True) for row in rows]


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


async def follow(api: LiveApi, run_id: str, chance: random.Random, cut: float) -> list[bytes]:
    """Every event of a run, as bytes; each frame may be the last of its stream."""
    seen: list[bytes] = []
    while True:
        call: Any = api.runs.StreamRunEvents(
            runs_pb2.StreamRunEventsRequest(run_id=run_id, after_seq=len(seen))
        )
        while (frame := await call.read()) is not grpc.aio.EOF:
            if frame.HasField("end"):
                return seen
            seen += [event.SerializeToString(deterministic=True) for event in frame.events.events]
            if chance.random() < cut:
                break
        call.cancel()


async def test_every_history_is_the_table_byte_for_byte(database: str) -> None:
    """Live with and without random disconnects, then from PostgreSQL by another replica.

    A run with texts beyond ASCII, steps side by side, a gate that is decided meanwhile.
    """
    chance = random.Random(66)
    async with live_api(database) as api, Client(api.address) as client:
        run = await client.start_run(source=BUSY)
        following = [asyncio.create_task(follow(api, run.id, chance, cut)) for cut in (0, 0.3, 0.9)]
        async for gate in client.gates.watch():
            await gate.approve(feedback="für später \u2713")
            break
        live = await asyncio.gather(*following)
        whole = await stored(api.engine.reads, run.id)
    async with live_api(database) as other:
        replayed = await asyncio.gather(*(follow(other, run.id, chance, cut) for cut in (0, 0.9)))

    assert len(whole) > 600
    assert [history == whole for history in (*live, *replayed)] == [True] * 5
