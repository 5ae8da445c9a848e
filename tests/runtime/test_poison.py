"""Runs that nobody can carry: the cap on silent owners, and what this server cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.runtime import setbacks
from runkon_server.runtime.budgets import INFRA_ATTEMPTS_MAX
from runkon_server.runtime.commands import AckStatus
from support.engines import Worker, engine_on, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    import pytest

    from support.engines import Rogue

SILENT = """
UPDATE workflow_runs SET owner_token = 'silent', lease_until = now(), infra_attempts = %s
WHERE id = %s"""


async def left(database: str, rogue: Rogue, body: str, attempts: int) -> str:
    """A run whose owner has fallen silent, as others have before it."""
    async with engine_on(database) as first:
        run_id = (await first.start_run(start(body))).run_id
        await rogue.parked(run_id)
    await rogue.rows(SILENT, attempts, run_id)
    return run_id


async def test_fault_35_a_run_that_silences_its_owners_is_failed(
    database: str, rogue: Rogue
) -> None:
    """Told in its last event; the always section, which might do the same, is not begun."""
    body = "call build always { call echo }"
    run_id = await left(database, rogue, body, INFRA_ATTEMPTS_MAX)

    async with engine_on(database):
        assert await rogue.ended(run_id) == "failed"

    events = await rogue.rows(
        "SELECT kind, payload FROM run_events WHERE run_id = %s ORDER BY seq", run_id
    )
    assert events[-1]["kind"] == "run_finished"
    assert "INFRA_POISON: 6 replicas" in events[-1]["payload"]
    assert "always_started" not in [event["kind"] for event in events]
    details = await rogue.row("SELECT error FROM run_details WHERE run_id = %s", run_id)
    assert details["error"].startswith("INFRA_POISON")
    await rogue.assert_sound()


async def test_a_run_may_lose_five_owners(database: str, rogue: Rogue) -> None:
    run_id = await left(database, rogue, "call build", INFRA_ATTEMPTS_MAX - 1)
    async with engine_on(database) as engine:
        Worker(engine, "build").serve()
        assert await rogue.ended(run_id) == "completed"


async def test_a_step_that_ends_forgives_and_a_decision_alone_does_not(
    database: str, rogue: Rogue
) -> None:
    async with engine_on(database) as engine:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build call never"))).run_id
        lease = await worker.lease()
        await rogue.rows("UPDATE workflow_runs SET infra_attempts = 3")
        await rogue.parked(run_id)  # a decision of its own
        assert (await rogue.run(run_id))["infra_attempts"] == 3

        await worker.answer(lease)

        async def forgiven() -> bool:
            return bool((await rogue.run(run_id))["infra_attempts"] == 0)

        await eventually(forgiven, "the end of the step counts")


async def test_a_run_that_cannot_be_read_is_set_aside(
    database: str, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nobody's meanwhile, so that a newer replica may take it; then it goes on."""
    monkeypatch.setattr(setbacks, "FIRST_S", 0.2)
    run_id = await left(database, rogue, "call build", 0)
    known = (await rogue.row("SELECT content_hash FROM run_details"))["content_hash"]
    change = "UPDATE run_details SET content_hash = %s"
    await rogue.rows(change, "gone")

    async with engine_on(database) as engine:
        Worker(engine, "build").serve()
        stats = engine.stats
        await until(lambda: stats.runs_set_aside >= 2 and not stats.leases_held, "set aside, twice")
        run = await rogue.run(run_id)
        assert run["infra_attempts"] <= 1, "its being unreadable is no mark against it"
        await rogue.rows(change, known)
        assert await rogue.ended(run_id) == "completed"


async def test_one_fact_that_is_not_known_here_does_not_hold_up_other_runs(
    database: str, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer replica recorded it; both runs are read together."""
    monkeypatch.setattr(setbacks, "FIRST_S", 0.2)
    odd = await left(database, rogue, "call build", 0)
    plain = await left(database, rogue, "call build", 0)
    await rogue.rows(SILENT, 0, odd)
    await rogue.rows("UPDATE workflow_runs SET fact_seq = fact_seq + 1 WHERE id = %s", odd)
    await rogue.rows(
        "INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)"
        " SELECT id, fact_seq, 'of_tomorrow', '{}', now() FROM workflow_runs WHERE id = %s",
        odd,
    )

    async with engine_on(database) as engine:
        Worker(engine, "build").serve()
        assert await rogue.ended(plain) == "completed"
        assert (await rogue.run(odd))["status"] == "running"
        await until(lambda: engine.stats.runs_set_aside >= 1, "the other one is set aside")


async def test_a_fact_that_is_not_known_here_sets_a_run_aside_that_is_in_memory(
    database: str, rogue: Rogue
) -> None:
    """It was read each second, with a traceback, and no newer replica could take the run."""
    async with engine_on(database) as engine:
        run_id = (await engine.start_run(start("call build"))).run_id
        await until(lambda: engine.stats.leases_held == 1, "it is in memory")
        await rogue.rows("UPDATE workflow_runs SET fact_seq = fact_seq + 1")
        await rogue.rows(
            "INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)"
            " SELECT id, fact_seq, 'of_tomorrow', '{}', now() FROM workflow_runs"
        )
        await until(lambda: engine.stats.runs_set_aside == 1, "it is set aside")

        async def nobodys() -> bool:
            return (await rogue.run(run_id))["owner_token"] is None

        await eventually(nobodys, "a newer replica may take it")
        assert engine.stats.leases_held == 0


async def test_a_report_that_met_such_a_fact_is_recorded_and_acknowledged(
    database: str, rogue: Rogue
) -> None:
    """It waited for the fact to be read; the worker must not wait for its answer for ever."""
    async with engine_on(database, poll_s=60.0, linger_s=60.0) as engine:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        await rogue.rows("UPDATE workflow_runs SET fact_seq = fact_seq + 1")
        await rogue.rows(
            "INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)"
            " SELECT id, fact_seq, 'of_tomorrow', '{}', now() FROM workflow_runs"
        )

        assert await worker.answer(lease) is AckStatus.ACCEPTED
        assert engine.stats.runs_set_aside >= 1
        kinds = await rogue.rows("SELECT kind FROM facts WHERE run_id = %s", run_id)
        assert [each["kind"] for each in kinds] == ["of_tomorrow", "reported"]


async def test_a_queued_task_that_is_not_understood_here_keeps_nobody_from_the_others(
    database: str, rogue: Rogue
) -> None:
    """A newer replica queued it. It stays leased, for it would come again at once, without end."""
    async with engine_on(database) as engine:
        odd = (await engine.start_run(start("call build"))).run_id
        await rogue.rows("""UPDATE tasks SET payload = '{"in_other": "words"}'""")
        plain = (await engine.start_run(start("call build"))).run_id
        worker = Worker(engine, "build").credit(1)

        assert (await worker.lease()).run_id == plain
        task = await rogue.row("SELECT state FROM tasks WHERE run_id = %s", odd)
        assert task["state"] == "leased"
        assert await worker.answer(worker.leases[0]) is AckStatus.ACCEPTED
