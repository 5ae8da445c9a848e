"""The clients' streams of a namespace, against a real replica behind a network that cuts them."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from runkon_client import Client, InvalidArgumentError, SyncClient
from runkon_client.values import EventKind, GateState
from support.cutting import cutting
from support.live_api import LiveApi, live_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STEPS = "workflow steps {" + "\n call echo" * 12 + "\n}"
GATES = 3
GATED = 'workflow gated { gate human_review { name = check prompt = "ok?" } }'
HISTORY = """
SELECT e.run_id, e.seq, e.kind FROM run_events e JOIN workflow_runs r ON r.id = e.run_id
WHERE r.namespace = 'default' ORDER BY e.xid, e.run_id, e.seq"""


@pytest_asyncio.fixture
async def api(database: str) -> AsyncIterator[LiveApi]:
    async with live_api(database) as served:
        yield served


async def history(api: LiveApi) -> list[tuple[str, int, str]]:
    """The table, in the order of commits."""
    async with api.engine.reads.connect() as conn:
        return [(row[0], row[1], row[2]) for row in await conn.execute(text(HISTORY))]


async def play(api: LiveApi, runs: int = 6) -> list[tuple[str, int, str]]:
    """Runs that end; their history."""
    async with Client(api.address) as client:
        started = [await client.start_run(source=STEPS) for _ in range(runs)]
        for run in started:
            await run.wait()
    return await history(api)


def named(each: Any) -> tuple[str, int, str]:
    return (each.event.run_id, each.event.seq, each.event.kind.value)


async def test_a_feed_is_the_table_however_often_it_is_cut(api: LiveApi) -> None:
    """Cut 30 times at random while runs are going: every event once, in the order of commits."""
    chance = random.Random(6)
    seen: list[tuple[str, int, str]] = []
    async with cutting(api.address) as cutter, Client(cutter.address) as client:
        stream = client.events()

        async def read() -> None:
            async for each in stream:
                seen.append(named(each))  # noqa: PERF401 - it never ends, and is looked at meanwhile

        async def cut() -> None:
            while True:
                await asyncio.sleep(chance.random() * 0.03)
                cutter.cut()

        reading, cutting_off = asyncio.create_task(read()), asyncio.create_task(cut())
        whole = await play(api)
        async with asyncio.timeout(60):
            while len(seen) < len(whole):
                await asyncio.sleep(0.01)
                if cutter.cuts > 30:
                    cutting_off.cancel()
        cutting_off.cancel()
        reading.cancel()

    assert seen == whole
    assert stream.disconnects > 0


async def test_a_stored_cursor_goes_on_in_another_process(api: LiveApi) -> None:
    """Taken after every seventh event, and used by a new client each time."""
    whole = await play(api, runs=3)
    seen: list[tuple[str, int, str]] = []
    cursor = ""
    while len(seen) < len(whole):
        async with Client(api.address) as client, client.events(cursor) as stream:
            async for each in stream:
                seen.append(named(each))
                if len(seen) % 7 == 0 or len(seen) == len(whole):
                    break
            assert stream.cursor == each.cursor
            cursor = each.cursor

    assert seen == whole


async def test_two_readers_of_one_cursor_read_the_same(api: LiveApi) -> None:
    """The async and the sync client, from the same place, with a filter; both end when told to."""
    whole = await play(api, runs=2)
    async with Client(api.address) as client:
        first = await anext(client.events())
        kinds = [EventKind.STEP_COMPLETED, EventKind.RUN_FINISHED]
        ours = [
            named(each) async for each in client.events(first.cursor, kinds=kinds, follow=False)
        ]

    def read_sync() -> list[tuple[str, int, str]]:
        with SyncClient(api.address) as sync:
            return [named(each) for each in sync.events(first.cursor, kinds=kinds, follow=False)]

    theirs = await asyncio.to_thread(read_sync)
    assert ours == theirs == [each for each in whole[1:] if each[2] in kinds]


async def test_a_cursor_that_is_none_is_an_error_at_once(api: LiveApi) -> None:
    async with Client(api.address) as client:
        with pytest.raises(InvalidArgumentError) as raised:
            await anext(client.events("nonsense"))

    assert raised.value.reason == "CURSOR_INVALID"


async def test_an_inbox_survives_cuts_and_sees_what_came_of_every_gate(api: LiveApi) -> None:
    """Three gates, each approved as soon as it is seen; the last state of each is seen in turn."""
    seen: dict[str, GateState] = {}

    async def watch(address: str) -> None:
        async with Client(address) as client:
            async for gate in client.gates.watch():
                if gate.gate.state is GateState.PENDING:
                    await gate.approve()
                seen[gate.gate.id] = gate.gate.state
                if list(seen.values()).count(GateState.APPROVED) == GATES:
                    return

    async with cutting(api.address) as cutter, asyncio.timeout(60):
        watching = asyncio.create_task(watch(cutter.address))
        async with Client(api.address) as client:
            for _ in range(GATES):
                await client.start_run(source=GATED)
                await asyncio.sleep(0.05)
                cutter.cut()
        await watching

    assert list(seen.values()) == [GateState.APPROVED] * GATES


async def test_the_sync_inbox_shows_a_gate_and_its_decision(api: LiveApi) -> None:
    """First as it waits, then as it was approved, on one stream."""

    def watch() -> list[GateState]:
        states = []
        with SyncClient(api.address) as client, client.gates.watch() as inbox:
            for gate in inbox:
                states.append(gate.gate.state)
                if gate.gate.state is GateState.APPROVED:
                    break
                gate.approve()
        return states

    async with Client(api.address) as client:
        await client.start_run(source=GATED)
        async with asyncio.timeout(60):
            states = await asyncio.to_thread(watch)

    assert states[0] is GateState.PENDING
    assert states[-1] is GateState.APPROVED
