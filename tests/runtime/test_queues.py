"""Queues of runs and workers: who is handed what, at once or from the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon_server.core.facts import Outcome
from runkon_server.store.action_limits import ActionLimit, set_limit
from support.engines import NAMESPACE, Worker, engine_on, start, until
from support.offers import stored
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

WAITING = "SELECT count(*) AS n FROM tasks WHERE state = 'queued'"


async def begin(engine: Engine, queue: str | None, body: str = "call build", **fields: Any) -> str:
    labels = {} if queue is None else {"queue": queue}
    return (await engine.start_run(start(body, labels=labels, **fields))).run_id


async def waiting(rogue: Rogue, number: int) -> None:
    async def all_wait() -> bool:
        return bool((await rogue.row(WAITING))["n"] == number)

    await eventually(all_wait, f"{number} tasks wait in the table")


async def test_a_task_goes_to_a_worker_of_its_queue_at_once(engine: Engine) -> None:
    """Three workers have credit; what each is given is of its queues."""
    plain, gpu, both = (
        Worker(engine, "build", queues=queues).credit(10) for queues in ((), ("gpu",), ("", "eu"))
    )
    runs = {await begin(engine, "gpu"): gpu, await begin(engine, "eu"): both}

    for run_id, worker in runs.items():
        assert (await worker.lease()).run_id == run_id
    others = {await begin(engine, queue) for queue in (None, "", "default", None)}
    await until(lambda: len(plain.leases) + len(both.leases) == 5, "all are given to somebody")
    assert len(gpu.leases) == 1
    assert {each.run_id for each in plain.leases} <= others


async def test_a_task_waits_for_its_queue_and_burns_no_attempt(
    engine: Engine, rogue: Rogue
) -> None:
    """Workers of other queues come, ask and go meanwhile."""
    plain = Worker(engine, "*").serve()
    run_id = await begin(engine, "gpu", "call build { retries = 1 }")
    await waiting(rogue, 1)
    other = await begin(engine, None)
    Worker(engine, "build", queues=["eu"]).credit(5)
    assert await rogue.all_ended([other]) == {"completed"}
    await waiting(rogue, 1)

    lease = await Worker(engine, "build", queues=["gpu"]).credit(1).lease()

    assert (lease.run_id, lease.attempt, lease.delivery) == (run_id, 0, 0)
    assert [each.run_id for each in plain.leases] == [other]


async def test_priorities_count_within_a_queue(engine: Engine, rogue: Rogue) -> None:
    runs = [await begin(engine, "gpu", priority=priority) for priority in (0, 9, 5)]
    await begin(engine, None, priority=100)
    await waiting(rogue, 4)
    worker = Worker(engine, "build", queues=["gpu"])

    leases = []
    for number in range(3):
        worker.credit(1)
        leases.append(await worker.lease(number))

    assert [each.run_id for each in leases] == [runs[1], runs[2], runs[0]]


async def test_names_go_before_fallbacks_in_each_queue_by_itself(
    engine: Engine, rogue: Rogue
) -> None:
    """Nobody names `build` in `gpu`, so a fallback there takes it; at once and from the table."""
    named = Worker(engine, "build").credit(10)
    fallback = Worker(engine, "*", queues=["", "gpu"]).credit(1)
    run_ids = [await begin(engine, "gpu"), await begin(engine, None), await begin(engine, "gpu")]
    first, second = await fallback.lease(), await named.lease()
    await waiting(rogue, 1)

    fallback.credit(1)

    assert [first.run_id, second.run_id] == run_ids[:2]
    assert (await fallback.lease(1)).run_id == run_ids[2]
    assert len(named.leases) == 1


async def test_a_worker_of_the_queue_goes_before_one_of_every_queue(engine: Engine) -> None:
    own = Worker(engine, "build", queues=["gpu"]).credit(1)
    every = Worker(engine, "build", queues=["*"]).credit(10)
    first, second = await begin(engine, "gpu"), await begin(engine, "gpu")

    assert (await own.lease()).run_id == first
    assert (await every.lease()).run_id == second


async def test_scripts_items_and_looks_at_gates_stay_in_their_queue(
    database: str, rogue: Rogue
) -> None:
    """A worker that offers everything in another queue is given nothing of it."""
    offers: dict[str, Any] = {
        "item_providers": frozenset({"tickets"}),
        "gate_types": frozenset({"deploy_window"}),
        "scripts": True,
    }
    bodies = [
        'script tidy { run = "true" }',
        "foreach f { over = tickets max_parallel = 1 workflow = each }",
        "gate deploy_window { name = check } call echo",
    ]
    async with engine_on(database) as engine:
        elsewhere = Worker(engine, "*", queues=["", "eu"], **offers).credit(10)
        await stored(engine, "each", "call build")
        for body in bodies:
            await begin(engine, "gpu", body)
        await waiting(rogue, len(bodies))
        own = Worker(engine, "none", queues=["gpu"], **offers).credit(10)

        await until(lambda: len(own.leases) == len(bodies), "all go to the queue's worker")

        assert {lease.kind for lease in own.leases} == {"script", "items", "gate"}
        assert elsewhere.leases == []


async def test_children_are_in_the_queue_of_their_parent(engine: Engine, rogue: Rogue) -> None:
    await stored(engine, "child", "call build")
    elsewhere = Worker(engine, "*").credit(10)
    worker = Worker(engine, "build", queues=["gpu"]).credit(1)

    run_id = await begin(engine, "gpu", "call workflow child")
    lease = await worker.lease()

    assert lease.workflow_name == "child"
    assert lease.run_id != run_id
    await worker.answer(lease)
    assert await rogue.all_ended([run_id]) == {"completed"}
    assert elsewhere.leases == []


async def test_what_the_server_does_itself_is_done_for_every_queue(
    engine: Engine, rogue: Rogue
) -> None:
    run_id = await begin(engine, "gpu", "call echo")

    assert await rogue.all_ended([run_id]) == {"completed"}


async def test_a_retry_and_a_lost_task_stay_in_the_queue(engine: Engine, rogue: Rogue) -> None:
    elsewhere = Worker(engine, "*").credit(10)
    worker = Worker(engine, "build", queues=["gpu"]).credit(2)
    await begin(engine, "gpu", "call build { retries = 1 }")
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, error="once")
    again = await worker.lease(1)
    assert again.attempt == 1
    worker.session.close()
    await rogue.rows("UPDATE tasks SET lease_until = now() - interval '1 s' WHERE state = 'leased'")
    await waiting(rogue, 1)

    last = await Worker(engine, "build", queues=["gpu"]).credit(1).lease()

    assert (last.task_id, last.delivery) == (again.task_id, 1)
    assert elsewhere.leases == []


async def test_a_limit_holds_over_all_queues_of_an_action(engine: Engine, rogue: Rogue) -> None:
    """One task may be out; a fallback takes it where no worker names the action."""
    async with engine.reads.connect() as conn:
        await set_limit(conn, NAMESPACE, "build", ActionLimit(1, None))
    await until(lambda: engine._dispatcher.limits.known, "the limit is known")
    runs = [await begin(engine, "gpu"), await begin(engine, None)]
    await waiting(rogue, 2)
    fallback = Worker(engine, "*", queues=["", "gpu"]).credit(5)
    first = await fallback.lease()
    assert first.run_id == runs[0]
    named = Worker(engine, "build").credit(5)

    await fallback.answer(first)

    assert (await named.lease()).run_id == runs[1]
    assert len(fallback.leases) == 1
