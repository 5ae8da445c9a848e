"""Gates: votes and deadlines raced on two replicas."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runkon_server import errors, failpoints
from runkon_server.runtime.commands import CancelRun, GateResolved
from runkon_server.runtime.gates import GateTimeoutEntry
from support.engines import NAMESPACE, engine_on, start, until, vote
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

PAST_DEADLINE = (
    "UPDATE gates SET deadline_at = now()",
    "UPDATE timers SET due_at = now()",
    "UPDATE workflow_runs SET ready_at = now()",
)


def gate(options: str = "") -> str:
    return f'gate human_review {{ name = check prompt = "ok?" {options} }} call echo'


async def waiting(engine: Engine, rogue: Rogue, options: str = "") -> str:
    """A run that is parked at its gate."""
    run_id = (await engine.start_run(start(gate(options)))).run_id
    await rogue.parked(run_id)
    return run_id


async def state_of(rogue: Rogue) -> dict[str, Any]:
    return await rogue.row("SELECT state, resolved_by, feedback FROM gates")


async def test_a_run_at_a_gate_is_parked_and_goes_on(engine: Engine, rogue: Rogue) -> None:
    run_id = await waiting(engine, rogue)
    assert (await rogue.run(run_id))["status"] == "waiting"
    await until(lambda: engine.stats.leases_held == 0, "it is not in memory")

    await engine.resolve_gate(vote(run_id, "ann", feedback="fine"))

    assert await rogue.ended(run_id) == "completed"
    assert await state_of(rogue) == {"state": "approved", "resolved_by": "ann", "feedback": "fine"}
    await rogue.assert_sound()


async def test_a_tally_counts_distinct_principals(engine: Engine, rogue: Rogue) -> None:
    run_id = await waiting(engine, rogue, "approvers = 2")

    await engine.resolve_gate(vote(run_id, "ann"))
    await engine.resolve_gate(vote(run_id, "ann"))
    assert (await state_of(rogue))["state"] == "pending"
    with pytest.raises(errors.GateAlreadyResolvedError):
        await engine.resolve_gate(vote(run_id, "ann", approve=False))
    await engine.resolve_gate(vote(run_id, "bob"))

    assert await rogue.ended(run_id) == "completed"
    assert (await rogue.kinds(run_id)).count("gate_voted") == 2
    assert (await rogue.row("SELECT count(*) AS n FROM gate_votes"))["n"] == 2


async def test_the_starter_may_be_excluded(engine: Engine, rogue: Rogue) -> None:
    run_id = await waiting(engine, rogue, "exclude_starter = true")

    with pytest.raises(errors.GateStarterExcludedError):
        await engine.resolve_gate(vote(run_id, "starter"))

    await engine.resolve_gate(vote(run_id, "ann"))
    assert await rogue.ended(run_id) == "completed"


async def test_one_of_many_votes_decides(database: str, rogue: Rogue) -> None:
    """Twenty principals approve and reject at once on two replicas; losers hear who won."""
    async with engine_on(database) as one, engine_on(database) as two:
        run_id = await waiting(one, rogue)
        before = len(await rogue.kinds(run_id))
        outcomes = await asyncio.gather(
            *(
                (one, two)[n % 2].resolve_gate(vote(run_id, f"p{n}", approve=n % 3 > 0))
                for n in range(20)
            ),
            return_exceptions=True,
        )

        (winner,) = [n for n, each in enumerate(outcomes) if isinstance(each, GateResolved)]
        lost = [each for each in outcomes if isinstance(each, errors.GateAlreadyResolvedError)]
        assert len(lost) == 19
        found = await state_of(rogue)
        assert found["resolved_by"] == f"p{winner}"
        assert found["state"] == ("approved" if winner % 3 else "rejected")
        assert await rogue.ended(run_id) == ("completed" if winner % 3 else "failed")
        assert (await rogue.kinds(run_id))[before:].count("gate_resolved") == 1
        await rogue.assert_sound()


async def test_a_repeated_request_votes_once(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as one, engine_on(database) as two:
        run_id = await waiting(one, rogue, "approvers = 3")
        command = vote(run_id, "ann", request_id="r", digest="d")

        answers = await asyncio.gather(*(each.resolve_gate(command) for each in (one, two) * 5))

        assert sum(not answer.replayed for answer in answers) == 1
        with pytest.raises(errors.RequestIdReusedError):
            await two.resolve_gate(vote(run_id, "ann", request_id="r", digest="other"))


async def test_a_gate_times_out(engine: Engine, rogue: Rogue) -> None:
    run_id = await waiting(engine, rogue, 'timeout = "1h"')

    for statement in PAST_DEADLINE:
        await rogue.rows(statement)

    assert await rogue.ended(run_id) == "failed"
    assert await state_of(rogue) == {"state": "timed_out", "resolved_by": None, "feedback": None}
    await rogue.assert_sound()


async def test_a_deadline_that_the_database_refused_once_is_tried_again(
    database: str, rogue: Rogue
) -> None:
    """While its run stays in memory, where nothing else would come back to it."""
    async with engine_on(database, linger_s=3_600.0) as engine:
        run_id = await waiting(engine, rogue, 'timeout = "1h"')
        failpoints.arm("batch.locked=raise(57014)*1")
        try:
            for statement in PAST_DEADLINE:
                await rogue.rows(statement)

            assert await rogue.ended(run_id) == "failed"
            assert failpoints.fired() == {"batch.locked": 1}
        finally:
            failpoints.disarm()


async def test_a_gate_that_timed_out_leaves_no_timer(engine: Engine, rogue: Rogue) -> None:
    """The run goes on to a second gate and is parked there until that one's deadline."""
    body = gate('timeout = "1h" on_timeout = continue') + " gate human_review { name = last }"
    run_id = (await engine.start_run(start(body))).run_id
    await rogue.parked(run_id)
    for statement in PAST_DEADLINE:
        await rogue.rows(statement)

    async def at_the_last() -> bool:
        found = await rogue.rows("SELECT 1 FROM gates WHERE name = 'last' AND state = 'pending'")
        return bool(found)

    await eventually(at_the_last, "the second gate opens")
    await rogue.parked(run_id)

    (timer,) = await rogue.rows("SELECT due_at FROM timers")
    run = await rogue.run(run_id)
    assert run["ready_at"] == timer["due_at"] > run["created_at"] + timedelta(minutes=1)


async def test_a_vote_after_the_deadline_is_refused(database: str, rogue: Rogue) -> None:
    """Nobody has noticed the deadline yet: the replica scans once a minute."""
    async with engine_on(database, scan_s=3600.0) as engine:
        run_id = await waiting(engine, rogue, 'timeout = "1h"')
        await rogue.rows(PAST_DEADLINE[0])

        with pytest.raises(errors.GateTimedOutError):
            await engine.resolve_gate(vote(run_id, "ann"))

        assert (await state_of(rogue))["state"] == "pending"


async def test_a_deadline_and_votes_race_for_one_decision(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as one, engine_on(database) as two:
        run_id = await waiting(one, rogue, 'timeout = "1s"')

        async def keep_voting(engine: Engine) -> list[object]:
            """Votes of nobody's quorum, then one that counts, about when the gate is due."""
            await asyncio.sleep(0.9)
            outcomes: list[object] = []
            for n in range(20):
                command = vote(run_id, f"{engine.replica_id}-{n}")
                outcomes += await asyncio.gather(
                    engine.resolve_gate(command), return_exceptions=True
                )
                await asyncio.sleep(0.01)
            return outcomes

        outcomes = [
            each
            for many in await asyncio.gather(keep_voting(one), keep_voting(two))
            for each in many
        ]

        found = await state_of(rogue)
        wins = sum(isinstance(each, GateResolved) for each in outcomes)
        assert (found["state"], wins) in {("approved", 1), ("timed_out", 0)}
        await rogue.ended(run_id)
        assert (await rogue.kinds(run_id)).count("gate_resolved") == 1
        await rogue.assert_sound()


async def test_a_gate_that_fires_early_is_looked_at_again(database: str, rogue: Rogue) -> None:
    """The database's deadline is moved on while the owner's timer runs; the run stays loaded."""
    async with engine_on(database, linger_s=60.0) as engine:
        run_id = await waiting(engine, rogue, 'timeout = "1h"')
        await rogue.rows("UPDATE gates SET deadline_at = now() + interval '1 s'")
        await rogue.rows("UPDATE timers SET due_at = now()")
        await rogue.rows("UPDATE workflow_runs SET ready_at = now()")

        assert await rogue.ended(run_id) == "failed"
        assert (await state_of(rogue))["state"] == "timed_out"


async def test_a_cancel_closes_the_gate(engine: Engine, rogue: Rogue) -> None:
    run_id = await waiting(engine, rogue)

    await engine.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="ann"))

    assert await rogue.ended(run_id) == "cancelled"
    with pytest.raises(errors.GateClosedError):
        await engine.resolve_gate(vote(run_id, "bob"))
    with pytest.raises(errors.RunNotFoundError):
        await engine.resolve_gate(vote(run_id, "bob", namespace="elsewhere"))


async def test_s11_a_cancel_right_behind_a_vote_lets_nothing_begin(
    engine: Engine, rogue: Rogue
) -> None:
    """S11: both are facts before anybody applies the first; found by the chaos rig, seed 1.

    The vote counts, its gate is done, and the step behind it does not start.
    """
    run_id = await waiting(engine, rogue)
    # Named by its id, the gate needs no look-up: the vote is recorded before the cancel.
    gate_id = (await rogue.row("SELECT id FROM gates"))["id"]

    await asyncio.gather(
        engine.resolve_gate(replace(vote(run_id, "ann"), gate_id=gate_id)),
        engine.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="ann")),
    )

    assert await rogue.ended(run_id) == "cancelled"
    kinds = await rogue.kinds(run_id)
    assert "step_started" not in kinds[kinds.index("run_cancel_requested") :]
    assert "run_unblocked" not in kinds
    assert (await state_of(rogue))["state"] == "approved"
    await rogue.assert_sound()


async def test_s10_a_deadline_right_behind_a_cancel_decides_nothing(
    engine: Engine, rogue: Rogue
) -> None:
    """S10: the cancel is recorded and not applied when the time is over; found by the chaos rig.

    Both decided the gate, and its row and its events told different winners.
    """
    run_id = await waiting(engine, rogue)
    gate_id = (await rogue.row("SELECT id FROM gates"))["id"]
    await rogue.rows(PAST_DEADLINE[0])
    registry = engine._registry

    cancelled = asyncio.ensure_future(
        engine.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="ann"))
    )
    await asyncio.sleep(0)  # it is in the queue, and what is submitted now joins its batch
    registry.submit(GateTimeoutEntry(run_id, f"{gate_id}:gate", registry.recorded, lambda _: None))
    await cancelled

    assert await rogue.ended(run_id) == "cancelled"
    assert (await state_of(rogue))["state"] == "cancelled"
    assert (await rogue.kinds(run_id)).count("gate_resolved") == 1
    await rogue.assert_sound()


async def test_cancel_and_vote_race_on_two_replicas(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as one, engine_on(database) as two:
        run_ids = [await waiting(one, rogue) for _ in range(10)]
        for run_id in run_ids:
            await asyncio.gather(
                one.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="ann")),
                two.resolve_gate(vote(run_id, "bob")),
                return_exceptions=True,
            )

        assert await rogue.all_ended(run_ids) <= {"cancelled", "completed"}
        await rogue.assert_sound()


async def test_a_gate_is_found_by_key(engine: Engine, rogue: Rogue) -> None:
    run_id = (await engine.start_run(start(gate(), key="k"))).run_id
    await rogue.parked(run_id)

    answer = await engine.resolve_gate(vote(None, "ann", key="k"))

    assert answer.run_id == run_id

    async def resolved() -> bool:
        return bool((await state_of(rogue))["state"] == "approved")

    await eventually(resolved, "the gate is approved")
