"""Which workers are connected: every replica says the same, whichever they are connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.commands import WorkerHello
from runkon_server.runtime.presence import NAMES_MAX, POLLER_TTL_S
from runkon_server.store.reads.workers import list_workers
from support.engines import BRIEF, NAMESPACE, Worker, engine_on, rogue_on, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runkon_server.runtime.engine import Engine
    from runkon_server.store.rows import WorkerRow
    from support.engines import Rogue


class Shifted(SystemAmbient):
    """A world whose clock can be put forward."""

    ahead_s = 0.0

    def boottime_s(self) -> float:
        return super().boottime_s() + self.ahead_s


async def listed(engine: Engine) -> Sequence[WorkerRow]:
    async with engine.reads.connect() as conn:
        page = await list_workers(conn, namespace=NAMESPACE, limit=500)
    return page.rows


async def lists(engine: Engine, ids: Collection[str]) -> None:
    """Return once the replica lists exactly these workers."""

    async def same() -> bool:
        return [row.worker_id for row in await listed(engine)] == sorted(ids)

    await eventually(same, f"the list is {sorted(ids)}")


def hello(worker_id: str, *actions: str, concurrency: int = 0) -> WorkerHello:
    return WorkerHello(
        namespace=NAMESPACE,
        worker_id=worker_id,
        actions=frozenset(actions),
        concurrency=concurrency,
        client="tests/1",
        item_providers=frozenset({"tickets"}),
        gate_types=frozenset({"deploy"}),
        scripts=True,
    )


def ignore() -> None:
    """A worker that does not look into its outbox."""


async def test_a_worker_of_one_replica_is_listed_by_the_other_until_it_goes(
    database: str, engine: Engine
) -> None:
    """With all that it said of itself."""
    async with engine_on(database) as other:
        session = other.open_session(hello("w", "b", "a", "*", concurrency=7), ignore)
        await lists(engine, ["w"])

        (row,) = await listed(engine)
        assert (row.actions, row.item_providers, row.gate_types) == (
            ["*", "a", "b"],
            ["tickets"],
            ["deploy"],
        )
        assert (row.scripts, row.concurrency, row.client) == (True, 7, "tests/1")
        assert (row.polls, row.replica) == (False, other.replica_id)
        assert row.connected_at <= row.seen_at

        session.close()
        await lists(engine, [])


async def test_a_worker_that_stays_is_seen_again_and_again(database: str, rogue: Rogue) -> None:
    """Far beyond the lease that it was first listed for; when it connected does not change."""
    async with engine_on(database, **BRIEF) as engine:
        Worker(engine, "build")
        await eventually(lambda: listed(engine), "the worker is listed")
        (first,) = await listed(engine)

        async def is_later() -> bool:
            rows = await listed(engine)  # none on a machine that holds its replica up for so long
            assert all(row.connected_at == first.connected_at for row in rows)
            seen_for_s = [(row.seen_at - first.seen_at).total_seconds() for row in rows]
            return any(each > engine.config.lease_ttl_s for each in seen_for_s)

        await eventually(is_later, "it is seen after its lease")
        assert len(await rogue.rows("SELECT 1 FROM workers")) == 1


async def test_a_replica_that_stops_takes_its_workers_off(database: str, engine: Engine) -> None:
    """Also those whose streams are still open."""
    async with engine_on(database) as other:
        other.open_session(hello("theirs"), ignore)
        await lists(engine, ["theirs"])
    assert list(await listed(engine)) == []


async def test_what_a_silent_replica_left_is_not_listed_and_removed(
    database: str, rogue: Rogue
) -> None:
    """A row that nobody refreshes is off the list at once when its time is over."""
    async with engine_on(database, **BRIEF) as engine:
        await rogue.rows(
            """INSERT INTO workers VALUES ('default', 'lost', 'dead', 'dead', '', '{}', '{}', '{}',
                   false, 1, false, now(), now(), now() - interval '1 ms')"""
        )
        assert list(await listed(engine)) == []

        async def removed() -> bool:
            return not await rogue.rows("SELECT 1 FROM workers")

        await eventually(removed, "the row is removed")


async def test_a_poller_counts_until_a_minute_after_its_last_poll(database: str) -> None:
    ambient = Shifted()

    def change(engine: Engine) -> None:
        engine.ambient = ambient

    async with engine_on(database, change=change) as engine:
        await engine.poll_tasks(hello("p"), max_tasks=1, wait_s=0)
        await lists(engine, ["p"])
        (row,) = await listed(engine)
        assert row.polls

        ambient.ahead_s = POLLER_TTL_S / 2
        await engine.poll_tasks(hello("p"), max_tasks=1, wait_s=0)
        ambient.ahead_s = POLLER_TTL_S + 1
        await lists(engine, ["p"])
        ambient.ahead_s = POLLER_TTL_S * 2
        await lists(engine, [])


async def test_a_poller_that_offers_something_else_is_listed_anew(engine: Engine) -> None:
    for action in ("a", "b"):
        await engine.poll_tasks(hello("p", action), max_tasks=1, wait_s=0)

        async def offers(action: str = action) -> bool:
            return [row.actions for row in await listed(engine)] == [[action]]

        await eventually(offers, f"it is listed with {action}")


async def test_the_last_stream_of_a_name_is_the_one_that_counts(engine: Engine) -> None:
    """An old stream that ends late does not take the new one off the list."""
    old = engine.open_session(hello("w", "a"), ignore)
    new = engine.open_session(hello("w", "b"), ignore)
    old.close()
    engine.open_session(hello("x"), ignore)
    await lists(engine, ["w", "x"])

    assert [row.actions for row in await listed(engine)] == [["b"], []]
    new.close()
    await lists(engine, ["x"])


async def test_rows_that_were_lost_are_written_again(database: str, rogue: Rogue) -> None:
    """As after a crash of the database, which empties the table."""
    async with engine_on(database, **BRIEF) as engine:
        engine.open_session(hello("w"), ignore)
        await lists(engine, ["w"])
        await rogue.rows("DELETE FROM workers")
        await lists(engine, ["w"])


async def test_offers_beyond_one_statement_come_with_the_next(engine: Engine) -> None:
    names = [f"a{number}" for number in range(1_000)]
    ids = [f"w{number:02}" for number in range(NAMES_MAX // 1_000 + 5)]
    for worker_id in ids:
        engine.open_session(hello(worker_id, *names), ignore)
    await lists(engine, ids)


async def test_pages_end_where_the_next_begins(engine: Engine) -> None:
    for worker_id in ("a", "b", "c"):
        engine.open_session(hello(worker_id), ignore)
    await lists(engine, ["a", "b", "c"])
    found: list[str] = []
    after = None
    async with engine.reads.connect() as conn:
        while True:
            page = await list_workers(conn, namespace=NAMESPACE, limit=1, after=after)
            found += [row.worker_id for row in page.rows]
            if not page.more:
                break
            after = (page.rows[-1].worker_id, page.rows[-1].replica_token)
    assert found == ["a", "b", "c"]


async def test_work_costs_no_statement_about_workers(database: str) -> None:
    """While a worker goes through many tasks, its replica writes the list as rarely as ever."""
    async with engine_on(database, lease_ttl_s=600, lease_refresh_s=200) as engine:
        worker = Worker(engine, "build").serve(50)
        await eventually(lambda: listed(engine), "the worker is listed")
        (before,) = await listed(engine)
        body = " ".join(["call build"] * 20)
        runs = [(await engine.start_run(start(body))).run_id for _ in range(5)]
        await until(lambda: len(worker.leases) == 100, "all tasks are done")
        async with rogue_on(database) as session:
            assert await session.all_ended(runs) == {"completed"}
        assert [row.seen_at for row in await listed(engine)] == [before.seen_at]
