"""RunService on a real engine: what callers say, what they get, and what they are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode
from sqlalchemy import delete, event, func, select

from runkon.v1 import runs_pb2, types_pb2, workflows_pb2
from runkon.v1.events_pb2 import EVENT_KIND_RUN_FINISHED, EVENT_KIND_STEP_COMPLETED
from runkon.v1.runs_pb2 import (
    CONFLICT_POLICY_CANCEL_EXISTING,
    CONFLICT_POLICY_FAIL,
    CONFLICT_POLICY_USE_EXISTING,
    StartRunRequest,
)
from runkon.v1.types_pb2 import (
    RUN_STATUS_CANCELLED,
    RUN_STATUS_CANCELLING,
    RUN_STATUS_COMPLETED,
    RUN_STATUS_PENDING,
    RUN_STATUS_WAITING,
)
from runkon_server.store import tables
from support.live_api import refusal
from support.rows import ulid

if TYPE_CHECKING:
    from support.live_api import LiveApi

ZOE = (("runkon-principal", "zoe"),)
QUICK = "workflow quick { inputs { what required loud boolean } call echo call echo }"
GATED = 'workflow gated { meta { title = "Gated" } call echo gate human_review { name = check } }'


async def put(api: LiveApi, source: str) -> None:
    await api.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=source))


async def start(api: LiveApi, **fields: Any) -> runs_pb2.StartRunResponse:
    return await api.runs.StartRun(StartRunRequest(**fields), metadata=ZOE)


async def ended(api: LiveApi, run_id: str) -> types_pb2.Run:
    """The run at its end."""
    answer = await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))
    assert answer.done
    return answer.run


async def waiting(api: LiveApi, run_id: str) -> types_pb2.Run:
    """The run when it stands at its gate."""
    async for frame in api.runs.StreamRunEvents(runs_pb2.StreamRunEventsRequest(run_id=run_id)):
        if any(event.WhichOneof("payload") == "run_waiting" for event in frame.events.events):
            break
    return (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run


async def run_count(api: LiveApi) -> int:
    async with api.engine.reads.connect() as conn:
        found: int = (
            await conn.execute(select(func.count()).select_from(tables.runs))
        ).scalar_one()
        return found


async def test_a_stored_workflow_is_started_by_name_or_version(api: LiveApi) -> None:
    await put(api, QUICK)
    await put(api, QUICK.replace("call echo }", "call echo call echo }"))
    newest = await start(api, workflow="quick", inputs={"what": "x"})
    first = await start(api, workflow="quick@1", inputs={"what": "x"})

    assert (newest.started, newest.replayed) == (True, False)
    assert (newest.run.workflow_version, first.run.workflow_version) == (2, 1)
    assert dict(newest.run.inputs) == {"what": "x", "loud": "false"}
    assert (newest.run.started_by, newest.run.namespace) == ("zoe", "default")
    assert newest.run.content_hash != first.run.content_hash
    assert newest.run.definition_snapshot == ""


async def test_a_run_keeps_what_it_was_started_with(api: LiveApi) -> None:
    answer = await start(
        api,
        source=GATED,
        key="order-1",
        labels={"team": "core"},
        priority=7,
        trigger="nightly",
        parent_run_id="build-4",
        config=types_pb2.RunConfig(fail_fast=False),
    )
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(key="order-1"))).run

    assert (run.id, run.workflow_version) == (answer.run.id, 0)
    assert (run.key, dict(run.labels), run.priority) == ("order-1", {"team": "core"}, 7)
    assert (run.trigger, run.parent_run_id, run.display_name) == ("nightly", "build-4", "Gated")
    assert (run.config.HasField("fail_fast"), run.config.fail_fast) == (True, False)


async def test_a_delayed_run_says_until_when_it_is_pending(api: LiveApi) -> None:
    answer = await start(api, source=GATED, start_delay={"seconds": 3600})
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=answer.run.id))).run

    assert run.status == RUN_STATUS_PENDING
    assert run.scheduled_time.ToSeconds() - run.create_time.ToSeconds() == 3600


async def test_a_finished_run_tells_its_story(api: LiveApi) -> None:
    """GetRun in both views and AwaitRun; one line per step."""
    answer = await start(api, source=QUICK, inputs={"what": "x"})
    run = await ended(api, answer.run.id)
    request = runs_pb2.GetRunRequest(run_id=run.id, view=types_pb2.VIEW_FULL)
    full = (await api.runs.GetRun(request)).run

    assert run.status == RUN_STATUS_COMPLETED
    assert run.result_summary.startswith("2 of 2 steps completed\n")
    assert run.result_summary.count("echo") == 2
    assert full.result_summary == run.result_summary
    assert '"name":"quick"' in full.definition_snapshot
    assert run.definition_snapshot == ""


async def test_a_waiting_run_shows_the_gate_and_the_step(api: LiveApi) -> None:
    answer = await start(api, source=GATED)
    run = await waiting(api, answer.run.id)

    assert run.status == RUN_STATUS_WAITING
    assert run.blocked_on.human_review.gate_name == "check"
    assert run.blocked_on.run_id == run.id
    assert (run.current_step.step_name, list(run.current_step.workflow_chain)) == (
        "check",
        ["gated"],
    )


@pytest.mark.parametrize(
    ("fields", "code", "reason", "fields_named"),
    [
        ({"workflow": "none"}, StatusCode.NOT_FOUND, "WORKFLOW_NOT_FOUND", []),
        ({"workflow": "quick@9"}, StatusCode.NOT_FOUND, "WORKFLOW_NOT_FOUND", []),
        (
            {"workflow": "quick", "namespace": "other"},
            StatusCode.NOT_FOUND,
            "WORKFLOW_NOT_FOUND",
            [],
        ),
        ({"workflow": "quick"}, StatusCode.INVALID_ARGUMENT, "INPUTS_INVALID", ["inputs.what"]),
        (
            {"workflow": "quick", "inputs": {"what": "", "why": ""}},
            StatusCode.INVALID_ARGUMENT,
            "INPUTS_INVALID",
            ["inputs.why"],
        ),
        (
            {"source": "workflow w { cal echo }"},
            StatusCode.INVALID_ARGUMENT,
            "DSL_SYNTAX",
            ["source:1:14"],
        ),
        (
            {"source": "workflow w { call a\x00 }"},
            StatusCode.INVALID_ARGUMENT,
            "DSL_SYNTAX",
            ["source:1:20"],
        ),
        (
            {"workflow": "quick", "inputs": {"what": "\x00"}},
            StatusCode.INVALID_ARGUMENT,
            "INVALID_ARGUMENT",
            ["inputs.what"],
        ),
    ],
)
async def test_a_bad_start_is_refused_and_nothing_is_written(
    api: LiveApi, fields: dict[str, Any], code: StatusCode, reason: str, fields_named: list[str]
) -> None:
    await put(api, QUICK)
    error = await refusal(start(api, **fields))

    assert (error.code, error.reason) == (code, reason)
    assert error.fields == fields_named
    assert "ErrorInfo" in error.kinds
    assert await run_count(api) == 0


async def test_texts_that_look_like_statements_are_stored_as_they_are(api: LiveApi) -> None:
    """In a key, a label, an input and the metadata of a run."""
    evil = "'; DROP TABLE workflow_runs; --"
    await start(api, source=QUICK, inputs={"what": evil}, key=evil, labels={"a": evil})
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(key=evil))).run

    assert (run.key, run.labels["a"], run.inputs["what"]) == (evil,) * 3
    assert await run_count(api) == 1


async def test_validating_answers_with_the_run_and_writes_nothing(api: LiveApi) -> None:
    await put(api, QUICK)
    answer = await start(
        api, workflow="quick", inputs={"what": "x"}, key="k", validate_only=True, request_id="r"
    )
    error = await refusal(start(api, workflow="quick", validate_only=True))

    assert (answer.started, answer.run.id, answer.run.status) == (False, "", RUN_STATUS_PENDING)
    assert (answer.run.workflow_version, answer.run.inputs["loud"]) == (1, "false")
    assert not answer.run.HasField("create_time")
    assert error.reason == "INPUTS_INVALID"
    assert await run_count(api) == 0


async def test_validating_knows_of_the_run_that_holds_the_key(api: LiveApi) -> None:
    holder = await start(api, source=GATED, key="k")
    error = await refusal(start(api, source=GATED, key="k", validate_only=True))
    used = await start(
        api,
        source=GATED,
        key="k",
        conflict_policy=CONFLICT_POLICY_USE_EXISTING,
        validate_only=True,
    )

    assert (error.reason, error.metadata["run_id"]) == ("RUN_KEY_IN_USE", holder.run.id)
    assert (used.run.id, used.started) == (holder.run.id, False)


async def test_the_same_request_again_gets_the_first_answer(api: LiveApi) -> None:
    """Also when the workflow has changed so much that it would be refused by now."""
    await put(api, "workflow w { call echo }")
    first = await start(api, workflow="w", request_id="r")
    again = await start(api, workflow="w", request_id="r", namespace="default")
    await put(api, "workflow w { inputs { must required } call echo }")
    late = await start(api, workflow="w", request_id="r")

    assert (first.started, first.replayed) == (True, False)
    assert (again.run.id, again.started, again.replayed) == (first.run.id, True, True)
    assert (late.run.id, late.started, late.replayed) == (first.run.id, True, True)
    assert await run_count(api) == 1


async def test_a_request_id_stands_for_one_payload_and_one_principal(api: LiveApi) -> None:
    await put(api, "workflow w { call echo }")
    await start(api, workflow="w", request_id="r")
    request = StartRunRequest(workflow="w", request_id="r")
    errors = [
        await refusal(start(api, workflow="w", request_id="r", priority=1)),
        await refusal(start(api, workflow="none", request_id="r")),
        await refusal(api.runs.StartRun(request, metadata=(("runkon-principal", "adam"),))),
    ]

    for error in errors:
        assert (error.code, error.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert "ResourceInfo" in error.kinds


async def test_a_key_is_held_by_one_live_run(api: LiveApi) -> None:
    """The three policies; the one that uses the live run looks at nothing else."""
    first = await start(api, source=GATED, key="k", conflict_policy=CONFLICT_POLICY_FAIL)
    error = await refusal(start(api, source=GATED, key="k"))
    used = await start(
        api,
        workflow="none",
        key="k",
        inputs={"wrong": "input"},
        conflict_policy=CONFLICT_POLICY_USE_EXISTING,
    )
    new = await start(api, source=GATED, key="k", conflict_policy=CONFLICT_POLICY_CANCEL_EXISTING)
    old = await ended(api, first.run.id)

    assert (error.code, error.reason) == (StatusCode.ALREADY_EXISTS, "RUN_KEY_IN_USE")
    assert error.metadata == {"key": "k", "run_id": first.run.id}
    assert (used.run.id, used.started) == (first.run.id, False)
    assert (new.started, new.run.id != first.run.id) == (True, True)
    assert old.status == RUN_STATUS_CANCELLED
    assert (await api.runs.GetRun(runs_pb2.GetRunRequest(key="k"))).run.id == new.run.id


async def test_in_a_batch_every_item_has_its_own_outcome(api: LiveApi) -> None:
    await put(api, QUICK)
    items = [
        StartRunRequest(workflow="quick", inputs={"what": "1"}),
        StartRunRequest(workflow="quick"),
        StartRunRequest(workflow="none"),
        StartRunRequest(workflow="quick", inputs={"what": "4"}, validate_only=True),
        StartRunRequest(workflow="w@x"),
        StartRunRequest(source=GATED),
    ]
    answer = await api.runs.BatchStartRuns(
        runs_pb2.BatchStartRunsRequest(requests=items), metadata=ZOE
    )

    assert [each.WhichOneof("outcome") for each in answer.outcomes] == [
        "response",
        "error",
        "error",
        "response",
        "error",
        "response",
    ]
    assert [each.error.reason for each in answer.outcomes if each.HasField("error")] == [
        "INPUTS_INVALID",
        "WORKFLOW_NOT_FOUND",
        "INVALID_ARGUMENT",
    ]
    assert [each.response.started for each in answer.outcomes] == [
        True, False, False, False, False, True,
    ]  # fmt: skip
    assert answer.outcomes[0].response.run.started_by == "zoe"
    assert not answer.replayed
    assert await run_count(api) == 2


async def test_a_batch_that_is_sent_again_starts_only_what_is_missing(api: LiveApi) -> None:
    """The second item was wrong at first; the workflow it needs is stored meanwhile."""
    items = [
        StartRunRequest(source=GATED),
        StartRunRequest(workflow="quick", inputs={"what": "x"}),
    ]
    batch = runs_pb2.BatchStartRunsRequest(requests=items, request_id="b")
    first = await api.runs.BatchStartRuns(batch)
    await put(api, QUICK)
    second = await api.runs.BatchStartRuns(batch)
    third = await api.runs.BatchStartRuns(batch)

    assert [each.response.replayed for each in second.outcomes] == [True, False]
    assert second.outcomes[0].response.run.id == first.outcomes[0].response.run.id
    assert (first.replayed, second.replayed, third.replayed) == (False, False, True)
    assert await run_count(api) == 2


async def test_a_large_batch_is_started_and_its_answer_fits(api: LiveApi) -> None:
    """500 runs whose default inputs make 10 MiB together: the answer is a message all the same."""
    await put(api, f'workflow w {{ inputs {{ a default = "{"x" * 20_000}" }} call hold }}')
    items = [StartRunRequest(workflow="w")] * 500
    answer = await api.runs.BatchStartRuns(runs_pb2.BatchStartRunsRequest(requests=items))

    assert sum(each.response.started for each in answer.outcomes) == 500
    assert len({each.response.run.id for each in answer.outcomes}) == 500


async def test_runs_are_listed_page_by_page(api: LiveApi) -> None:
    """Both orders; a token of one order is no token of the other."""
    batch = runs_pb2.BatchStartRunsRequest(requests=[StartRunRequest(source=GATED)] * 5)
    made = [each.response.run.id for each in (await api.runs.BatchStartRuns(batch)).outcomes]
    for order in ("", "create_time desc", "create_time"):
        seen: list[str] = []
        token = ""
        while True:
            request = runs_pb2.ListRunsRequest(page_size=2, page_token=token, order_by=order)
            page = await api.runs.ListRuns(request)
            seen += [run.id for run in page.runs]
            token = page.next_page_token
            if not token:
                break

        assert seen == sorted(made, reverse=order != "create_time")
    first = await api.runs.ListRuns(runs_pb2.ListRunsRequest(page_size=2))
    wrong = runs_pb2.ListRunsRequest(page_token=first.next_page_token, order_by="create_time")
    error = await refusal(api.runs.ListRuns(wrong))

    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_a_full_list_carries_snapshots_within_the_limit_of_a_message(api: LiveApi) -> None:
    """Forty runs with a large definition: several pages, each run once."""
    source = f'workflow w {{ meta {{ description = "{"d" * 60_000}" }} ' + "call a " * 900 + "}"
    batch = runs_pb2.BatchStartRunsRequest(requests=[StartRunRequest(source=source)] * 40)
    await api.runs.BatchStartRuns(batch)
    seen: list[str] = []
    token = ""
    pages = 0
    while pages == 0 or token:
        request = runs_pb2.ListRunsRequest(view=types_pb2.VIEW_FULL, page_token=token)
        page = await api.runs.ListRuns(request)
        assert all(run.definition_snapshot for run in page.runs)
        seen += [run.id for run in page.runs]
        token = page.next_page_token
        pages += 1

    assert len(seen) == len(set(seen)) == 40
    assert pages > 1


async def test_a_full_list_reads_no_more_definitions_than_it_shows(api: LiveApi) -> None:
    """A hundred of their own, 60 KB each: some fifty fit. At 2 MB each they would fill memory."""
    requests = [
        StartRunRequest(source=f'workflow w {{ meta {{ description = "{n:060000}" }} call a }}')
        for n in range(100)
    ]
    for some in (requests[:50], requests[50:]):
        await api.runs.BatchStartRuns(runs_pb2.BatchStartRunsRequest(requests=some))
    asked = 0

    def count(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        nonlocal asked
        asked += len(parameters) - 1 if "definitions.snapshot" in statement else 0

    event.listen(api.engine.reads.sync_engine, "before_cursor_execute", count)
    request = runs_pb2.ListRunsRequest(view=types_pb2.VIEW_FULL, page_size=100)
    page = await api.runs.ListRuns(request)
    event.remove(api.engine.reads.sync_engine, "before_cursor_execute", count)

    assert len({run.definition_snapshot for run in page.runs}) == len(page.runs) > 30
    assert page.next_page_token
    assert len(page.runs) <= asked < 100


async def test_a_run_that_is_cancelled_ends_and_is_cancelled_only_once(api: LiveApi) -> None:
    answer = await start(api, source=GATED)
    await waiting(api, answer.run.id)
    request = runs_pb2.CancelRunRequest(run_id=answer.run.id, reason="enough", request_id="c")
    first = await api.runs.CancelRun(request, metadata=ZOE)
    again = await api.runs.CancelRun(request, metadata=ZOE)
    run = await ended(api, answer.run.id)
    late = await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run.id))

    assert first.run.status in (RUN_STATUS_CANCELLING, RUN_STATUS_CANCELLED)
    assert (first.replayed, again.replayed) == (False, True)
    assert (run.status, run.cancel_reason) == (RUN_STATUS_CANCELLED, "enough")
    assert late.run.status == RUN_STATUS_CANCELLED


async def test_a_finished_run_cannot_be_cancelled(api: LiveApi) -> None:
    answer = await start(api, source=QUICK, inputs={"what": "x"})
    run = await ended(api, answer.run.id)
    error = await refusal(api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run.id)))

    assert (error.code, error.reason) == (StatusCode.FAILED_PRECONDITION, "RUN_STATE")
    assert error.metadata == {"subject": run.id, "state": "completed"}
    assert "PreconditionFailure" in error.kinds


async def test_waiting_without_time_answers_at_once(api: LiveApi) -> None:
    answer = await start(api, source=GATED)
    request = runs_pb2.AwaitRunRequest(run_id=answer.run.id, timeout={"seconds": 0})  # type: ignore[arg-type]  # a dict will do
    found = await api.runs.AwaitRun(request)

    assert (found.done, found.run.id) == (False, answer.run.id)


async def test_a_replica_that_goes_away_sends_those_who_wait_to_another(api: LiveApi) -> None:
    answer = await start(api, source=GATED)
    call = api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=answer.run.id))
    waits = asyncio.create_task(refusal(call))
    await waiting(api, answer.run.id)
    await api.engine.stop()
    error = await waits

    assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
    assert "RetryInfo" in error.kinds


@pytest.mark.parametrize("namespace", ["default", "other"])
async def test_an_unknown_run_and_another_namespaces_look_the_same(
    api: LiveApi, namespace: str
) -> None:
    run_id = ulid(1)
    if namespace == "other":
        answer = await start(api, source=GATED, namespace="default")
        run_id = answer.run.id
    where: dict[str, Any] = {"namespace": namespace, "run_id": run_id}
    for call in (
        api.runs.GetRun(runs_pb2.GetRunRequest(**where)),
        api.runs.CancelRun(runs_pb2.CancelRunRequest(**where)),
        api.runs.AwaitRun(runs_pb2.AwaitRunRequest(**where)),
        api.runs.ListSteps(runs_pb2.ListStepsRequest(**where)),
        api.runs.ListRunEvents(runs_pb2.ListRunEventsRequest(**where)),
        api.runs.StreamRunEvents(runs_pb2.StreamRunEventsRequest(**where)).read(),
        api.runs.GetRun(runs_pb2.GetRunRequest(namespace=namespace, key="nobody's")),
    ):
        error = await refusal(call)

        assert (error.code, error.reason) == (StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        assert "ResourceInfo" in error.kinds
        assert error.message.endswith(" in this namespace")


async def test_steps_are_listed_page_by_page(api: LiveApi) -> None:
    answer = await start(api, source=QUICK, inputs={"what": "x"})
    await ended(api, answer.run.id)
    first = await api.runs.ListSteps(runs_pb2.ListStepsRequest(run_id=answer.run.id, page_size=1))
    second = await api.runs.ListSteps(
        runs_pb2.ListStepsRequest(
            run_id=answer.run.id, page_size=1, page_token=first.next_page_token
        )
    )

    assert [step.path for step in (*first.steps, *second.steps)] == ["body.0", "body.1"]
    assert second.next_page_token == ""


async def test_events_are_read_from_a_cursor_and_by_kind(api: LiveApi) -> None:
    answer = await start(api, source=QUICK, inputs={"what": "x"})
    run_id = (await ended(api, answer.run.id)).id
    seen: list[int] = []
    after = 0
    while True:
        page = await api.runs.ListRunEvents(
            runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=after, page_size=2)
        )
        seen += [event.seq for event in page.events]
        after = page.examined_seq
        if after >= page.head_seq:
            break
    kinds = [EVENT_KIND_STEP_COMPLETED, EVENT_KIND_RUN_FINISHED]
    some = await api.runs.ListRunEvents(runs_pb2.ListRunEventsRequest(run_id=run_id, kinds=kinds))

    assert seen == list(range(1, page.head_seq + 1))
    assert [event.WhichOneof("payload") for event in some.events] == [
        "step_completed",
        "step_completed",
        "run_finished",
    ]
    assert (some.examined_seq, some.oldest_seq) == (some.head_seq, 1)


async def test_a_cursor_outside_of_what_is_kept_is_out_of_range(api: LiveApi) -> None:
    """Above the head, and below the oldest event after some were removed; the edge is inside."""
    answer = await start(api, source=QUICK, inputs={"what": "x"})
    run_id = (await ended(api, answer.run.id)).id
    ahead = await refusal(
        api.runs.ListRunEvents(runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=99))
    )
    async with api.engine.reads.connect() as conn:
        await conn.execute(delete(tables.run_events).where(tables.run_events.c.seq < 3))
    expired = await refusal(
        api.runs.ListRunEvents(runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=1))
    )
    edge = await api.runs.ListRunEvents(runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=2))

    assert (ahead.code, ahead.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD")
    assert (expired.code, expired.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    assert expired.metadata["oldest_seq"] == "3"
    assert edge.events[0].seq == edge.oldest_seq == 3
