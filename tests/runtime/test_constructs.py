"""Items, scripts, polled gates, pull requests, output texts: served end to end on rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runkon_server import errors
from runkon_server.core.decision import GateWork, ItemsWork, ScriptWork
from runkon_server.core.facts import GateDecision, Item, Outcome
from runkon_server.core.resuming import ResumeMode
from runkon_server.runtime import actors
from runkon_server.runtime.commands import (
    AckStatus,
    PullRequest,
    ReportPullRequest,
    ResumeRun,
)
from support.engines import NAMESPACE, Worker, engine_on, start, until, vote
from support.offers import Specialist, foreach, stored
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

STEAL_ALL = """
UPDATE workflow_runs SET owner_token = 'dead', generation = generation + 1, lease_until = now()
WHERE owner_token IS NOT NULL"""
HEAD = "a" * 40


async def started(engine: Engine, body: str, **fields: Any) -> str:
    return (await engine.start_run(start(body, **fields))).run_id


async def by_status(rogue: Rogue) -> dict[str, int]:
    rows = await rogue.rows(
        "SELECT status, count(*) AS n FROM workflow_run_step_fan_out_items GROUP BY status"
    )
    return {row["status"]: row["n"] for row in rows}


async def counts(rogue: Rogue) -> dict[str, Any]:
    """The counters of the standing foreach step."""
    return await rogue.row(
        "SELECT status, fan_out_total AS total, fan_out_completed AS completed,"
        " fan_out_failed AS failed, fan_out_skipped AS skipped FROM workflow_run_steps"
        " WHERE role = 'foreach' AND superseded_epoch IS NULL"
    )


# -- foreach --------------------------------------------------------------------------------------


async def test_300_items_run_although_their_owner_dies(engine: Engine, rogue: Rogue) -> None:
    """All leases are taken away three times on the way."""
    await stored(engine, "each", "inputs { n required } call echo")
    run_id = await started(engine, **foreach(300))

    for mark in (20, 120, 220):

        async def far_enough(least: int = mark) -> bool:
            return (await by_status(rogue)).get("completed", 0) >= least

        await eventually(far_enough, f"{mark} items are completed")
        await rogue.rows(STEAL_ALL)

    assert await rogue.ended(run_id) == "completed"
    assert await by_status(rogue) == {"completed": 300}
    assert (await counts(rogue))["completed"] == 300
    children = await rogue.row(
        "SELECT count(*) AS n, count(DISTINCT fan_out_item_id) AS items FROM run_details"
        " WHERE parent_step_id IS NOT NULL"
    )
    assert children == {"n": 300, "items": 300}
    assert (await rogue.kinds(run_id)).count("fan_out_item_completed") == 300
    await rogue.assert_sound()


async def test_a_restart_of_a_foreach_begins_with_new_items(engine: Engine, rogue: Rogue) -> None:
    """Two of six children fail; in the new epoch those two are resumed and four carried over."""
    worker = Worker(engine, "build").credit(20)
    await stored(engine, "each", "inputs { n required } call build")
    run_id = await started(engine, **foreach(6, options="on_child_fail = continue"))
    for number in range(6):
        lease = await worker.lease(number)
        bad = lease.inputs["n"] in {"2", "4"}
        outcome = Outcome.FAILED if bad else Outcome.COMPLETED
        await worker.answer(lease, outcome=outcome, retryable=False)
    assert await rogue.ended(run_id) == "completed"
    await engine.resume_run(
        ResumeRun(namespace=NAMESPACE, run_id=run_id, principal="ann", mode=ResumeMode.RESTART)
    )
    for number in range(6, 12):
        lease = await worker.lease(number)
        bad = lease.inputs["n"] in {"2", "4"}
        await worker.answer(lease, outcome=Outcome.FAILED if bad else Outcome.COMPLETED)
    assert await rogue.ended(run_id) == "completed"
    assert (await counts(rogue))["failed"] == 2
    await rogue.assert_sound()


async def test_a_halted_foreach_is_taken_up_item_by_item(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(20)
    await stored(engine, "each", "inputs { n required } call build")
    run_id = await started(engine, **foreach(4, options="on_child_fail = halt"))
    leases = {(lease := await worker.lease(n)).inputs["n"]: lease for n in range(4)}
    await worker.answer(leases["0"])
    await worker.answer(leases["1"], outcome=Outcome.FAILED, retryable=False)
    await until(lambda: len(worker.cancels) == 2, "the others are told to stop")
    for number in ("2", "3"):
        await worker.answer(leases[number], outcome=Outcome.CANCELLED)
    assert await rogue.ended(run_id) == "failed"

    await engine.resume_run(
        ResumeRun(namespace=NAMESPACE, run_id=run_id, principal="ann", mode=ResumeMode.NORMAL)
    )
    again = {(lease := await worker.lease(n)).inputs["n"]: lease for n in range(4, 7)}
    assert again.keys() == {"1", "2", "3"}
    for lease in again.values():
        await worker.answer(lease)

    assert await rogue.ended(run_id) == "completed"
    assert (await counts(rogue))["completed"] == 4
    resumed = await rogue.rows("SELECT id FROM workflow_runs WHERE epoch = 2")
    assert len(resumed) == 2  # the parent, and the child that had failed
    await rogue.assert_sound()


@pytest.mark.parametrize("takes_over", [False, True])
async def test_the_items_of_a_foreach_run_one_version(
    engine: Engine, rogue: Rogue, *, takes_over: bool
) -> None:
    """A newer version is stored while the first item runs, and perhaps the owner dies."""
    worker = Worker(engine, "old", "new").credit(10)
    await stored(engine, "each", "inputs { n required } call old")
    options = "on_child_fail = continue"
    fields = foreach(3, options=options)
    run_id = await started(
        engine, fields["body"].replace("max_parallel = 8", "max_parallel = 1"),
        inputs=fields["inputs"],
    )  # fmt: skip
    lease = await worker.lease()
    await stored(engine, "each", "inputs { n required } call new")
    if takes_over:
        await rogue.rows(STEAL_ALL)

    await worker.answer(lease)
    for number in (1, 2):
        await worker.answer(await worker.lease(number))

    assert await rogue.ended(run_id) == "completed"
    assert [lease.action for lease in worker.leases] == ["old"] * 3


async def test_a_worker_provides_items_and_their_context(engine: Engine, rogue: Rogue) -> None:
    provider = Specialist(engine, providers=("tickets",)).credit(1)
    worker = Worker(engine, "build").serve()
    await stored(engine, "each", "inputs { title required } call build")
    run_id = await started(
        engine,
        "foreach f { over = tickets max_parallel = 2 workflow = each scope = { team = core }"
        ' inputs = { title = "{{item.title}}" } }',
    )

    lease = await provider.lease()
    assert isinstance(lease.work, ItemsWork)
    assert (lease.kind, lease.work.scope) == ("items", {"team": "core"})
    items = [Item("ticket", f"T-{n}", f"Ticket {n}", {"title": f"t{n}"}) for n in range(3)]
    provider.found(lease, *items)

    assert await rogue.ended(run_id) == "completed"
    assert sorted(lease.inputs["title"] for lease in worker.leases) == ["t0", "t1", "t2"]
    assert {lease.inputs["item.id"] for lease in worker.leases} == {"T-0", "T-1", "T-2"}
    await rogue.assert_sound()


async def test_items_reported_elsewhere_reach_their_run(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as owner, engine_on(database) as other:
        provider = Specialist(owner, providers=("tickets",)).credit(1)
        await stored(owner, "each", "call echo")
        run_id = await started(
            owner, "foreach f { over = tickets max_parallel = 2 workflow = each }"
        )
        lease = await provider.lease()
        provider.session = other.open_session(provider.session.hello, provider._notified)

        provider.found(lease, Item("", "a"), Item("", "b"))

        assert await rogue.ended(run_id) == "completed"
        assert await by_status(rogue) == {"completed": 2}
        await rogue.assert_sound()


async def test_runs_are_provided_by_the_server(engine: Engine, rogue: Rogue) -> None:
    """By workflow, status and label; the run that asks is not among them."""
    await stored(engine, "each", "call echo")
    wanted = [await started(engine, "call echo", labels={"team": "core"}) for _ in range(2)]
    await started(engine, "call echo", labels={"team": "other"})
    assert await rogue.all_ended(wanted) == {"completed"}

    run_id = await started(
        engine,
        "foreach f { over = workflow_runs max_parallel = 2 workflow = each"
        ' filter = { status = "completed,failed" workflow = w labels = "team=core"'
        ' newer_than = "1h" } }',
    )

    assert await rogue.ended(run_id) == "completed"
    found = await rogue.rows("SELECT item_id FROM workflow_run_step_fan_out_items ORDER BY 1")
    assert [row["item_id"] for row in found] == sorted(wanted)


@pytest.mark.parametrize(
    ("provider", "options", "why"),
    [
        ("list", "", "scope"),
        ("list", 'scope = { items = "{" }', "JSON"),
        ("list", 'scope = { items = "[[1]]" }', "item 0"),
        ("workflow_runs", "scope = { a = b }", "scope"),
        ("workflow_runs", "filter = { state = completed }", "state"),
        ("workflow_runs", "filter = { status = finished }", "finished"),
        ("workflow_runs", 'filter = { older_than = "7d" }', "duration"),
        ("workflow_runs", "filter = { labels = team }", "pair"),
        ("workflow_runs", "ordered = true", "order"),
    ],
)
async def test_a_provider_says_what_it_does_not_know(
    engine: Engine, rogue: Rogue, provider: str, options: str, why: str
) -> None:
    await stored(engine, "each", "call echo")
    run_id = await started(
        engine, f"foreach f {{ over = {provider} max_parallel = 1 workflow = each {options} }}"
    )

    assert await rogue.ended(run_id) == "failed"
    step = await rogue.row("SELECT step_error FROM workflow_run_steps")
    assert why in step["step_error"]
    await rogue.assert_sound()


# -- scripts, misfits, texts ----------------------------------------------------------------------


async def test_a_script_goes_only_to_workers_that_execute_scripts(
    engine: Engine, rogue: Rogue
) -> None:
    fallback = Worker(engine, "*").credit(5)
    run_id = await started(
        engine,
        'inputs { who required } script greet { run = "echo {{who}}" }',
        inputs={"who": "$x"},
    )
    shell = Specialist(engine, scripts=True).credit(1)

    lease = await shell.lease()
    assert isinstance(lease.work, ScriptWork)
    assert (lease.kind, lease.action) == ("script", "greet")
    assert "$x" not in lease.work.text
    assert "$x" in lease.work.environment.values()
    await shell.answer(lease, raw_output="hello")

    assert await rogue.ended(run_id) == "completed"
    step = await rogue.row("SELECT context_out, result_text FROM workflow_run_steps")
    assert step == {"context_out": "hello", "result_text": "hello"}
    assert fallback.leases == []
    await rogue.assert_sound()


@pytest.mark.parametrize("is_local", [True, False], ids=["owner", "other replica"])
async def test_an_answer_to_another_question_fails_the_step(
    database: str, rogue: Rogue, *, is_local: bool
) -> None:
    """Items for an action."""
    async with engine_on(database) as owner, engine_on(database) as other:
        worker = Specialist(owner, "build").credit(1)
        run_id = await started(owner, "call build")
        lease = await worker.lease()
        if not is_local:
            worker.session = other.open_session(worker.session.hello, worker._notified)

        worker.found(lease, Item("", "a"))

        assert (await worker.ack()).verdict.status is AckStatus.ACCEPTED
        assert await rogue.ended(run_id) == "failed"
        step = await rogue.row("SELECT error_code FROM workflow_run_steps")
        assert step == {"error_code": "OUTPUT_INVALID"}
        await rogue.assert_sound()


SCHEMA = "fields:\n  verdict: enum(good, bad)\n"


@pytest.mark.parametrize("is_queued", [True, False])
async def test_a_lease_brings_its_texts(engine: Engine, rogue: Rogue, *, is_queued: bool) -> None:
    """Snippets with placeholders filled in and the schema, pushed or taken from the queue."""
    worker = None if is_queued else Worker(engine, "build").credit(2)
    made = start(
        'inputs { who required } call build { output = review with = ["tone" "gone"] }',
        inputs={"who": "Ann"},
    )
    with_texts = replace(
        made.pinned,
        content_hash="h",
        output_schemas={"review": SCHEMA},
        snippets={"tone": "Be kind to {{who}}."},
    )
    command = replace(made, pinned=with_texts)
    run_id = (await engine.start_run(command)).run_id
    worker = worker or Worker(engine, "build").credit(2)

    lease = await worker.lease()
    assert lease.snippets == (("tone", "Be kind to Ann."), ("gone", ""))
    assert lease.output_schema == ("review", SCHEMA)
    output = 'text <<<FLOW_OUTPUT>>>{"verdict": "good"}<<<END_FLOW_OUTPUT>>>'
    await worker.answer(lease, raw_output=output)

    assert await rogue.ended(run_id) == "completed"
    step = await rogue.row("SELECT structured_output FROM workflow_run_steps")
    assert "good" in step["structured_output"]


async def test_an_output_that_its_schema_refuses_fails_the_attempt(
    engine: Engine, rogue: Rogue
) -> None:
    """The plan of the run is compiled with the stored schema, also after a takeover elsewhere."""
    worker = Worker(engine, "build").credit(2)
    await stored(
        engine, "child", "call build { output = review }", output_schemas={"review": SCHEMA}
    )
    run_id = await started(engine, "call workflow child")

    await worker.answer(await worker.lease(), raw_output="no block at all")

    assert await rogue.ended(run_id) == "failed"
    codes = await rogue.rows("SELECT error_code FROM workflow_run_steps WHERE role = 'actor'")
    assert codes == [{"error_code": "OUTPUT_INVALID"}]


# -- gates ----------------------------------------------------------------------------------------


async def polled(engine: Engine, options: str = "") -> tuple[str, Specialist]:
    looker = Specialist(engine, gates=("deploy_window",)).credit(1)
    body = f"gate deploy_window {{ name = check {options} }} call echo"
    return await started(engine, body), looker


async def test_a_worker_looks_at_a_gate_until_it_is_decided(engine: Engine, rogue: Rogue) -> None:
    run_id, looker = await polled(engine, 'options = { now = "Now" later = "Later" }')
    lease = await looker.lease()
    assert isinstance(lease.work, GateWork)
    assert (lease.kind, lease.work.name) == ("gate", "check")
    await rogue.parked(run_id)

    looker.looked(lease)
    assert (await looker.ack()).verdict.status is AckStatus.ACCEPTED
    looker.credit(1)
    second = await looker.lease(1)
    assert second.attempt == 1
    looker.looked(second, GateDecision.APPROVED, selections=("now",))

    assert await rogue.ended(run_id) == "completed"
    gate = await rogue.row("SELECT state, resolved_by, selections FROM gates")
    assert gate == {"state": "approved", "resolved_by": "bot", "selections": ["now"]}
    await rogue.assert_sound()


async def test_a_look_that_selects_what_is_no_option_fails_the_step(
    engine: Engine, rogue: Rogue
) -> None:
    run_id, looker = await polled(engine, 'options = { now = "Now" }')

    looker.looked(await looker.lease(), GateDecision.APPROVED, selections=("never",))

    assert await rogue.ended(run_id) == "failed"
    step = await rogue.row("SELECT error_code FROM workflow_run_steps WHERE role = 'gate'")
    assert step == {"error_code": "OUTPUT_INVALID"}
    await rogue.assert_sound()


async def test_a_person_may_be_quicker_than_a_look(engine: Engine, rogue: Rogue) -> None:
    """The look is told to stop; what it finds out after all changes nothing."""
    run_id, looker = await polled(engine)
    lease = await looker.lease()

    await engine.resolve_gate(vote(run_id, "ann"))
    assert await rogue.ended(run_id) == "completed"
    looker.looked(lease, GateDecision.REJECTED)

    assert (await looker.ack()).verdict.status is not AckStatus.ACCEPTED
    gate = await rogue.row("SELECT state, resolved_by FROM gates")
    assert gate == {"state": "approved", "resolved_by": "ann"}
    await rogue.assert_sound()


def pull_request(run_id: str, **fields: Any) -> ReportPullRequest:
    values: dict[str, Any] = {"head_commit": HEAD, "author": "ann"} | fields
    return ReportPullRequest(
        namespace=NAMESPACE,
        principal="forge",
        pull_request=PullRequest(**values),
        run_id=run_id,
        gate_name="check",
    )


async def test_a_pull_request_is_approved_by_others_at_its_head(
    engine: Engine, rogue: Rogue
) -> None:
    """The author's approval and one of an older commit do not count."""
    run_id = await started(engine, "gate pr_approval { name = check min_approvals = 2 } call echo")
    await rogue.parked(run_id)
    some = (("ann", HEAD), ("bob", HEAD), ("carl", "b" * 40))

    waiting = await engine.report_pull_request(pull_request(run_id, approvals=some))
    assert "1 of 2" in waiting.pending_reason
    done = await engine.report_pull_request(
        pull_request(run_id, approvals=(*some, ("dora", HEAD)), url="http://127.0.0.1/1")
    )
    again = await engine.report_pull_request(pull_request(run_id))

    assert (done.pending_reason, done.replayed, again.replayed) == ("", False, True)
    assert await rogue.ended(run_id) == "completed"
    gate = await rogue.row("SELECT state, resolved_by, feedback FROM gates")
    assert gate == {
        "state": "approved",
        "resolved_by": "forge",
        "feedback": "http://127.0.0.1/1",
    }
    await rogue.assert_sound()


async def test_a_pull_request_waits_for_every_check(engine: Engine, rogue: Rogue) -> None:
    run_id = await started(engine, "gate pr_checks { name = check } call echo")
    await rogue.parked(run_id)

    one = await engine.report_pull_request(
        pull_request(run_id, checks=(("unit", "succeeded"), ("lint", "failed")))
    )
    assert "lint" in one.pending_reason
    await engine.report_pull_request(
        pull_request(run_id, checks=(("unit", "succeeded"), ("lint", "skipped")))
    )

    assert await rogue.ended(run_id) == "completed"


async def test_a_report_of_a_pull_request_is_refused_where_it_means_nothing(
    engine: Engine, rogue: Rogue
) -> None:
    human = await started(engine, "gate human_review { name = check }")
    rejected = await started(engine, "gate pr_checks { name = check }")
    await rogue.parked(human)
    await rogue.parked(rejected)
    await engine.resolve_gate(vote(rejected, "ann", approve=False))

    with pytest.raises(errors.GateTypeMismatchError):
        await engine.report_pull_request(pull_request(human))
    with pytest.raises(errors.GateAlreadyResolvedError):
        await engine.report_pull_request(pull_request(rejected))
    with pytest.raises(errors.GateNotFoundError):
        await engine.report_pull_request(
            replace(pull_request(human), gate_id=f"{human}/nope", run_id=None)
        )


async def test_a_pending_answer_is_given_again(engine: Engine, rogue: Rogue) -> None:
    run_id = await started(engine, "gate pr_checks { name = check }")
    await rogue.parked(run_id)
    asked = replace(pull_request(run_id), request_id="r-1", digest="a")

    first = await engine.report_pull_request(asked)
    second = await engine.report_pull_request(asked)

    assert second == replace(first, replayed=True)
    assert first.pending_reason


# -- budgets --------------------------------------------------------------------------------------


async def test_a_run_with_too_many_events_fails_and_leaves_nothing(
    engine: Engine, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is made small; a child and a task of the run are out when it is reached."""
    worker = Worker(engine, "build").credit(5)
    await stored(engine, "child", "call build")
    other = await started(engine, "call build")
    run_id = await started(engine, "call build call workflow child")
    monkeypatch.setattr(actors, "EVENTS_MAX", 3)

    lease = await worker.lease(1)
    assert await worker.answer(lease) is AckStatus.ACCEPTED

    assert await rogue.ended(run_id) == "failed"
    details = await rogue.row("SELECT error FROM run_details WHERE run_id = %s", run_id)
    assert details["error"].startswith("BUDGET_EXCEEDED")
    assert (await rogue.kinds(run_id))[-1] == "run_finished"
    assert (await rogue.run(other))["status"] == "running"
    monkeypatch.undo()
    await worker.answer(worker.leases[0])
    assert await rogue.ended(other) == "completed"
    await rogue.assert_sound()
