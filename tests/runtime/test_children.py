"""Child runs: created with the parent's decision, told of afterwards, cancelled and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runkon_server import errors
from runkon_server.core.facts import Outcome
from runkon_server.core.resuming import ResumeMode
from runkon_server.runtime.children import DEPTH_MAX, DESCENDANTS_MAX
from runkon_server.runtime.commands import CancelRun, ResumeRun
from runkon_server.runtime.resuming import ResumeEntry
from support.engines import NAMESPACE, Worker, engine_on, start, until, vote
from support.offers import stored
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

STEAL_ALL = """
UPDATE workflow_runs SET owner_token = 'dead', generation = generation + 1, lease_until = now()
WHERE owner_token IS NOT NULL"""


async def child_of(rogue: Rogue, run_id: str) -> dict[str, Any]:
    """The only child of a run, once there is one."""

    async def exists() -> bool:
        return bool(await rogue.rows(CHILDREN, run_id))

    await eventually(exists, "a child run is there")
    return await rogue.row(CHILDREN, run_id)


CHILDREN = """
SELECT r.*, d.* FROM workflow_runs r JOIN run_details d ON d.run_id = r.id
WHERE r.parent_workflow_run_id = %s"""


async def started(engine: Engine, body: str, **fields: Any) -> str:
    return (await engine.start_run(start(body, **fields))).run_id


async def only_step(rogue: Rogue, run_id: str, name: str) -> dict[str, Any]:
    return await rogue.row(
        "SELECT * FROM workflow_run_steps WHERE workflow_run_id = %s AND step_name = %s"
        " AND superseded_epoch IS NULL",
        run_id,
        name,
    )


def _silent(child_run_id: str) -> None:
    del child_run_id


def cancel(run_id: str, *, force: bool = False) -> CancelRun:
    return CancelRun(
        namespace=NAMESPACE, run_id=run_id, principal="ann", reason="enough", force=force
    )


def resume(run_id: str, mode: ResumeMode = ResumeMode.NORMAL, **fields: Any) -> ResumeRun:
    return ResumeRun(namespace=NAMESPACE, run_id=run_id, principal="ann", mode=mode, **fields)


async def test_a_child_takes_after_its_parent_and_reports_back(
    engine: Engine, rogue: Rogue
) -> None:
    """Inputs, labels, flags and the tree; what the child's steps said reaches the parent's."""
    worker = Worker(engine, "build").credit(10)
    await stored(engine, "child", 'inputs { n required  m default = "2" } call build')
    run_id = await started(
        engine,
        'call workflow child { inputs = { n = "1" } } call build',
        labels={"team": "core"},
        priority=3,
        fail_fast=False,
    )

    lease = await worker.lease()
    assert lease.inputs["n"] + lease.inputs["m"] == "12"
    await worker.answer(lease, context="done", markers=("good",))
    child = await child_of(rogue, run_id)
    assert (await worker.lease(1)).inputs["prior_context"] == "done"
    await worker.answer(worker.leases[1])

    assert await rogue.ended(run_id) == "completed"
    step = await only_step(rogue, run_id, "workflow:child")
    assert (step["child_run_id"], step["child_end"], step["context_out"]) == (
        child["id"],
        "completed",
        "done",
    )
    assert (child["labels"], child["priority"], child["fail_fast"]) == ({"team": "core"}, 3, False)
    assert (child["root_run_id"], child["depth"], child["parent_step_id"]) == (
        run_id,
        1,
        step["id"],
    )
    assert (await rogue.run(run_id))["descendants"] == 1
    assert (await rogue.kinds(run_id)).count("child_run_finished") == 1
    await rogue.assert_sound()


async def test_a_child_works_as_its_call_says(engine: Engine, rogue: Rogue) -> None:
    """Two levels down as well, unless a step names its own identity; also after a takeover."""
    worker = Worker(engine, "build").credit(10)
    await stored(engine, "inner", "call build call build { as = own }")
    await stored(engine, "child", "call workflow inner")
    run_id = await started(engine, "call workflow child { as = bot } call build")

    seen = []
    for number in range(3):
        lease = await worker.lease(number)
        seen.append(lease.identity)
        await rogue.rows(STEAL_ALL)
        await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert seen == ["bot", "own", None]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("call workflow nobody", "WORKFLOW_NOT_FOUND"),
        ("call workflow child", "INPUTS_INVALID"),
        ('call workflow child { inputs = { n = "1" x = "2" } }', "INPUTS_INVALID"),
    ],
    ids=["unknown", "missing input", "undeclared input"],
)
async def test_a_child_that_cannot_be_started_fails_its_step(
    engine: Engine, rogue: Rogue, call: str, code: str
) -> None:
    await stored(engine, "child", "inputs { n required } call echo")
    run_id = await started(engine, call)

    assert await rogue.ended(run_id) == "failed"
    (step,) = await rogue.rows("SELECT error_code FROM workflow_run_steps")
    assert step["error_code"] == code
    assert len(await rogue.rows("SELECT 1 FROM workflow_runs")) == 1
    await rogue.assert_sound()


async def test_a_tree_has_a_greatest_depth(engine: Engine, rogue: Rogue) -> None:
    """A workflow that calls itself: five children deep, the sixth is refused."""
    await stored(engine, "w", "call workflow w")
    run_id = await started(engine, "call workflow w")

    assert await rogue.ended(run_id) == "failed"
    depths = await rogue.rows("SELECT depth FROM run_details ORDER BY depth")
    assert [row["depth"] for row in depths] == list(range(DEPTH_MAX + 1))
    codes = await rogue.rows("SELECT error_code FROM workflow_run_steps ORDER BY workflow_run_id")
    assert {"error_code": "DEPTH_EXCEEDED"} in codes
    await rogue.assert_sound()


async def test_a_tree_has_a_greatest_size(engine: Engine, rogue: Rogue) -> None:
    """The root's count is raised by SQL, so that one more child is one too many."""
    worker = Worker(engine, "build").credit(1)
    await stored(engine, "child", "call echo")
    run_id = await started(engine, "call build call workflow child { on_fail = continue }")
    lease = await worker.lease()
    await rogue.rows("UPDATE workflow_runs SET descendants = %s", DESCENDANTS_MAX)

    await worker.answer(lease)

    assert await rogue.ended(run_id) == "failed"
    error = await rogue.row("SELECT error FROM run_details WHERE run_id = %s", run_id)
    assert str(DESCENDANTS_MAX) in error["error"]
    await rogue.assert_sound()


async def test_a_parked_parent_is_woken_by_its_child(database: str, rogue: Rogue) -> None:
    async with engine_on(database, linger_s=0.05) as engine:
        worker = Worker(engine, "build").credit(1)
        await stored(engine, "child", "call build")
        run_id = await started(engine, "call workflow child call echo")
        lease = await worker.lease()
        await rogue.parked(run_id)

        await worker.answer(lease)

        assert await rogue.ended(run_id) == "completed"
        await rogue.assert_sound()


async def test_an_end_that_nobody_told_of_is_found_by_another_replica(
    database: str, rogue: Rogue
) -> None:
    """The child's owner falls silent between the child's end and the word to the parent."""
    async with engine_on(database) as silent, engine_on(database) as other:
        worker = Worker(silent, "build").credit(1)
        await stored(silent, "child", "call build")
        run_id = await started(silent, "call workflow child call echo")
        lease = await worker.lease()
        silent._registry.notifier.tell = _silent  # type: ignore[method-assign] # it is to be odd

        await worker.answer(lease)

        assert await rogue.ended(run_id) == "completed"
        assert other.stats.batches > 0
        await rogue.assert_sound()


async def test_parents_and_children_survive_their_owner(engine: Engine, rogue: Rogue) -> None:
    """All leases are made those of a dead replica, once before each report."""
    worker = Worker(engine, "build").credit(10)
    await stored(engine, "inner", "call build")
    await stored(engine, "child", "call build call workflow inner")
    run_id = await started(engine, "call workflow child call build")

    for number in range(3):
        lease = await worker.lease(number)
        await rogue.rows(STEAL_ALL)
        await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert len(worker.leases) == 3
    await rogue.assert_sound()


@pytest.mark.parametrize("force", [False, True])
async def test_a_cancel_goes_down_the_tree(engine: Engine, rogue: Rogue, *, force: bool) -> None:
    worker = Worker(engine, "build").credit(1)
    await stored(engine, "inner", "call build")
    await stored(engine, "child", "call workflow inner")
    run_id = await started(engine, "call workflow child always { call echo }")
    lease = await worker.lease()

    await engine.cancel_run(cancel(run_id, force=force))
    await until(lambda: worker.cancels, "the worker is told to stop")
    if not force:
        await worker.answer(lease, outcome=Outcome.CANCELLED)

    runs = [row["id"] for row in await rogue.rows("SELECT id FROM workflow_runs")]
    assert await rogue.all_ended(runs) == {"cancelled"}
    told = await rogue.rows("SELECT id FROM workflow_runs WHERE NOT parent_notified")

    async def all_told() -> bool:
        return not await rogue.rows("SELECT 1 FROM workflow_runs WHERE NOT parent_notified")

    await eventually(all_told, f"the parents of {told} count as told")
    await rogue.assert_sound()


async def test_a_gate_below_is_seen_above(engine: Engine, rogue: Rogue) -> None:
    """Two levels up; nothing of the three is in memory while they wait."""
    await stored(engine, "inner", "gate human_review { name = check }")
    await stored(engine, "child", "call workflow inner")
    run_id = await started(engine, "call workflow child call echo")

    async def blocked() -> bool:
        return bool((await rogue.run(run_id))["status"] == "waiting")

    await eventually(blocked, "the root says that it waits")
    await until(lambda: engine.stats.leases_held == 0, "all of them are parked")
    blocked_on = (await rogue.run(run_id))["blocked_on"]
    inner = blocked_on["run_id"]
    assert (await rogue.run(inner))["workflow_name"] == "inner"

    await engine.resolve_gate(vote(inner, "bob"))

    assert await rogue.ended(run_id) == "completed"
    kinds = await rogue.kinds(run_id)
    assert (kinds.count("run_waiting"), kinds.count("run_unblocked")) == (1, 1)
    await rogue.assert_sound()


async def failed_below(engine: Engine, rogue: Rogue, worker: Worker) -> str:
    """A run that a failed child has failed."""
    await stored(engine, "child", "call echo call build")
    run_id = await started(engine, "call workflow child call echo")
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, error="no", retryable=False)
    assert await rogue.ended(run_id) == "failed"
    return run_id


async def test_a_resume_goes_down_to_the_step_that_failed(engine: Engine, rogue: Rogue) -> None:
    """The child gets a second epoch and repeats one step of its two."""
    worker = Worker(engine, "build").credit(5)
    run_id = await failed_below(engine, rogue, worker)

    await engine.resume_run(resume(run_id))
    await worker.answer(await worker.lease(1))

    assert await rogue.ended(run_id) == "completed"
    child = await child_of(rogue, run_id)
    assert (child["status"], child["epoch"]) == ("completed", 2)
    steps = await rogue.rows(
        "SELECT epoch FROM workflow_run_steps WHERE workflow_run_id = %s ORDER BY at, epoch",
        child["id"],
    )
    assert [step["epoch"] for step in steps] == [1, 1, 2]
    assert (await rogue.kinds(child["id"])).count("run_resumed") == 1
    await rogue.assert_sound()


async def test_a_child_that_was_resumed_before_its_parent_is_awaited(
    engine: Engine, rogue: Rogue
) -> None:
    worker = Worker(engine, "build").credit(5)
    run_id = await failed_below(engine, rogue, worker)
    child = await child_of(rogue, run_id)
    await engine.resume_run(resume(child["id"]))
    lease = await worker.lease(1)

    await engine.resume_run(resume(run_id))
    await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert len(worker.leases) == 2
    await rogue.assert_sound()


async def test_a_child_that_was_resumed_and_ended_before_its_parent_counts(
    engine: Engine, rogue: Rogue
) -> None:
    worker = Worker(engine, "build").credit(5)
    run_id = await failed_below(engine, rogue, worker)
    child = await child_of(rogue, run_id)
    await engine.resume_run(resume(child["id"]))
    await worker.answer(await worker.lease(1))
    assert await rogue.ended(child["id"]) == "completed"

    await engine.resume_run(resume(run_id))

    assert await rogue.ended(run_id) == "completed"
    assert len(worker.leases) == 2
    await rogue.assert_sound()


async def test_a_child_is_not_resumed_before_its_parent_heard_of_its_end(
    database: str, rogue: Rogue
) -> None:
    """Else the parent would wait for the end of an epoch that nobody can tell it of any more."""
    async with engine_on(database) as engine:
        worker = Worker(engine, "build").credit(5)
        await stored(engine, "child", "call build")
        run_id = await started(engine, "call workflow child")
        lease = await worker.lease()
        child = await child_of(rogue, run_id)
        engine._registry.notifier.tell = _silent  # type: ignore[method-assign] # it is to be odd
        await worker.answer(lease, outcome=Outcome.FAILED, error="no", retryable=False)
        assert await rogue.ended(child["id"]) == "failed"

        with pytest.raises(errors.ConflictError):
            await engine.resume_run(resume(child["id"]))

        del engine._registry.notifier.tell
        await engine.resume_run(resume(child["id"]))
        assert await rogue.ended(run_id) == "failed"
        await worker.answer(await worker.lease(1))
        assert await rogue.ended(child["id"]) == "completed"
        await rogue.assert_sound()


async def test_a_child_that_waits_when_its_parent_is_resumed_blocks_it(
    engine: Engine, rogue: Rogue
) -> None:
    """It was resumed before, and told so while the parent was over."""
    worker = Worker(engine, "build").credit(5)
    await stored(engine, "child", "call build gate human_review { name = check }")
    run_id = await started(engine, "call workflow child")
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, error="no", retryable=False)
    assert await rogue.ended(run_id) == "failed"
    child = (await child_of(rogue, run_id))["id"]
    await engine.resume_run(resume(child))
    await worker.answer(await worker.lease(1))

    async def told() -> bool:
        row = await rogue.run(child)
        return bool(row["status"] == "waiting" and row["parent_notified"])

    await eventually(told, "the word to the parent is out of the way")
    await engine.resume_run(resume(run_id))

    async def blocked() -> bool:
        return bool((await rogue.run(run_id))["status"] == "waiting")

    await eventually(blocked, "the parent says that it waits")
    await engine.resolve_gate(vote(child, "bob"))
    assert await rogue.ended(run_id) == "completed"
    await rogue.assert_sound()


async def test_a_resume_of_a_child_that_is_not_made_gives_its_credit_back(
    engine: Engine, rogue: Rogue
) -> None:
    """The child is resumed by somebody else between the parent's decision and its commit."""
    worker = Worker(engine, "build").credit(3)
    run_id = await failed_below(engine, rogue, worker)
    child = (await child_of(rogue, run_id))["id"]
    left = worker.session.credit
    loser = await engine._registry.prepare_resume(run_id, ResumeMode.NORMAL)
    assert worker.session.credit == left - 1, "the child's step has a worker in advance"
    await engine.resume_run(resume(child))
    lease = await worker.lease(1)

    engine._registry.submit(ResumeEntry(resume(run_id), None, loser, None))
    await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert worker.session.credit == left - 1, "only the resume that was made took one"
    await rogue.assert_sound()


async def test_a_resume_is_refused_with_its_reason(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(5)
    live = await started(engine, "call build")
    done = await started(engine, "call echo")
    stopped = await started(engine, "call build")
    await engine.cancel_run(cancel(stopped, force=True))
    assert await rogue.all_ended([done, stopped]) == {"completed", "cancelled"}

    for run_id in (live, done, stopped):
        with pytest.raises(errors.RunStateError):
            await engine.resume_run(resume(run_id))
    with pytest.raises(errors.RunNotFoundError):
        await engine.resume_run(resume("0" * 26))
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, retryable=False)
    assert await rogue.ended(live) == "failed"
    with pytest.raises(errors.StepNotFoundError):
        await engine.resume_run(resume(live, ResumeMode.FROM_STEP, from_step_id=f"{live}/nope"))


async def test_a_resume_is_answered_once_per_request_id(engine: Engine, rogue: Rogue) -> None:
    """A repeat while the run is live again, and one with another payload."""
    worker = Worker(engine, "build").credit(5)
    run_id = await started(engine, "call build")
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, retryable=False)
    assert await rogue.ended(run_id) == "failed"
    asked = resume(run_id, request_id="r-1", digest="a")

    first = await engine.resume_run(asked)
    second = await engine.resume_run(asked)
    with pytest.raises(errors.RequestIdReusedError):
        await engine.resume_run(resume(run_id, request_id="r-1", digest="b"))

    assert (first.replayed, second.replayed) == (False, True)
    assert (await rogue.run(run_id))["epoch"] == 2
    await worker.answer(await worker.lease(1))
    assert await rogue.ended(run_id) == "completed"
    await rogue.assert_sound()


async def test_a_resume_takes_its_key_back_or_is_refused(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(5)
    run_id = await started(engine, "call build", key="k")
    await worker.answer(await worker.lease(), outcome=Outcome.FAILED, retryable=False)
    assert await rogue.ended(run_id) == "failed"
    other = await started(engine, "call build", key="k")

    with pytest.raises(errors.RunKeyInUseError):
        await engine.resume_run(resume(run_id))
    await worker.answer(await worker.lease(1))
    assert await rogue.ended(other) == "completed"
    await engine.resume_run(resume(run_id))

    holder = await rogue.row("SELECT run_id FROM run_keys WHERE key = 'k'")
    assert holder == {"run_id": run_id}
    await worker.answer(await worker.lease(2))
    assert await rogue.ended(run_id) == "completed"
    await rogue.assert_sound()


async def test_a_restart_repeats_everything(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(5)
    run_id = await started(engine, "call build call build")
    await worker.answer(await worker.lease())
    await worker.answer(await worker.lease(1))
    assert await rogue.ended(run_id) == "completed"

    await engine.resume_run(resume(run_id, ResumeMode.RESTART))
    await worker.answer(await worker.lease(2))
    await worker.answer(await worker.lease(3))

    assert await rogue.ended(run_id) == "completed"
    rows = await rogue.rows("SELECT superseded_epoch FROM workflow_run_steps ORDER BY at, epoch")
    assert [row["superseded_epoch"] for row in rows] == [2, None, 2, None]
    details = await rogue.row("SELECT resume_mode, error FROM run_details")
    assert details == {"resume_mode": "restart", "error": None}
    await rogue.assert_sound()


async def test_a_resumed_run_survives_its_owner(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(5)
    run_id = await failed_below(engine, rogue, worker)
    await engine.resume_run(resume(run_id))
    lease = await worker.lease(1)
    await rogue.rows(STEAL_ALL)

    await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert len(worker.leases) == 2
    await rogue.assert_sound()
