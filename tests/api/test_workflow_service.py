"""WorkflowService on a real database: versions, views, and what is wrong with a source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import StatusCode
from sqlalchemy import func, select

from runkon.v1 import gates_pb2, runs_pb2, types_pb2, workflows_pb2
from runkon.v1.workflows_pb2 import (
    DeleteWorkflowRequest,
    GetWorkflowRequest,
    ListWorkflowsRequest,
    PutWorkflowRequest,
    ValidateWorkflowRequest,
)
from runkon_server.store import tables
from support.live_api import refusal
from support.live_work import ended, start, waiting

if TYPE_CHECKING:
    from support.live_api import LiveApi

SOURCE = 'workflow w { meta { title = "The W" } inputs { a required } call echo }'
ZOE = (("runkon-principal", "zoe"),)


async def put(api: LiveApi, source: str, **fields: Any) -> workflows_pb2.PutWorkflowResponse:
    return await api.workflows.PutWorkflow(
        PutWorkflowRequest(source=source, **fields), metadata=ZOE
    )


async def get(api: LiveApi, **fields: Any) -> workflows_pb2.Workflow:
    return (await api.workflows.GetWorkflow(GetWorkflowRequest(**fields))).workflow


async def test_what_is_stored_comes_back_whole(api: LiveApi) -> None:
    answer = await put(api, SOURCE, snippets={"style": "be brief"}, output_schemas={"o": "a: 1"})
    full = await get(api, name="w")
    basic = await get(api, name="w", version=1, view=types_pb2.VIEW_BASIC)

    assert (answer.created, answer.replayed, answer.workflow) == (True, False, basic)
    assert (full.version, full.title, full.created_by) == (1, "The W", "zoe")
    assert (full.source, dict(full.snippets)) == (SOURCE, {"style": "be brief"})
    assert dict(full.output_schemas) == {"o": "a: 1"}
    assert full.definition_json.startswith('{"name":"w"')
    assert (basic.source, basic.definition_json, len(basic.inputs)) == ("", "", 1)


async def test_only_new_content_is_a_new_version(api: LiveApi) -> None:
    """The source, a snippet, and a name that is taken elsewhere."""
    first = await put(api, SOURCE)
    same = await put(api, SOURCE)
    other_snippet = await put(api, SOURCE, snippets={"a": "b"})
    elsewhere = await put(api, SOURCE, namespace="other")

    assert [each.workflow.version for each in (first, same, other_snippet, elsewhere)] == [
        1, 1, 2, 1,
    ]  # fmt: skip
    assert [each.created for each in (first, same, other_snippet, elsewhere)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert first.workflow.content_hash == elsewhere.workflow.content_hash


async def test_a_repeated_request_gets_the_first_answer(api: LiveApi) -> None:
    """Also after another version came in between; the same id for other content is refused."""
    first = await put(api, SOURCE, request_id="r")
    await put(api, SOURCE, snippets={"a": "b"})
    again = await put(api, SOURCE, request_id="r")
    error = await refusal(put(api, SOURCE.replace("echo", "other"), request_id="r"))

    assert (again.replayed, again.created, again.workflow) == (True, True, first.workflow)
    assert (error.code, error.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_the_same_request_many_times_at_once_is_one(api: LiveApi) -> None:
    answers = await asyncio.gather(*(put(api, SOURCE, request_id="r") for _ in range(8)))

    assert {answer.workflow.version for answer in answers} == {1}
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7


async def test_a_wrong_source_is_refused_and_nothing_is_stored(api: LiveApi) -> None:
    error = await refusal(put(api, "workflow w {\n  call\n}", request_id="r"))
    async with api.engine.reads.connect() as conn:
        counts = [
            (await conn.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (tables.workflows, tables.definitions, tables.requests)
        ]

    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "DSL_SYNTAX")
    assert error.fields == ["source:3:1"]
    assert counts == [0, 0, 0]


async def test_warnings_come_with_the_answer_and_refuse_only_strictly(api: LiveApi) -> None:
    source = "workflow w { call echo { colour = 1 } }"
    answer = await put(api, source)
    error = await refusal(put(api, source, strict=True))

    assert [each.severity for each in answer.diagnostics] == [types_pb2.SEVERITY_WARNING]
    assert (error.reason, error.fields) == ("DSL_SEMANTIC", ["source:1:26"])


async def test_a_hundred_errors_reach_the_caller_as_far_as_they_fit(api: LiveApi) -> None:
    """Many undefined steps in conditions, with names of the greatest length."""
    conditions = "".join(f"if {'s' * 120}{n}.b {{ }} " for n in range(99))
    error = await refusal(put(api, f"workflow w {{ {conditions} }}"))

    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "DSL_SEMANTIC")
    assert int(error.metadata["violations_left_out"]) + len(error.fields) == 99


async def test_unknown_workflows_and_versions_are_not_found(api: LiveApi) -> None:
    await put(api, SOURCE)
    for fields in ({"name": "v"}, {"name": "w", "version": 2}, {"name": "w", "namespace": "x"}):
        error = await refusal(get(api, **fields))

        assert (error.code, error.reason) == (StatusCode.NOT_FOUND, "WORKFLOW_NOT_FOUND")


async def delete(api: LiveApi, **fields: Any) -> workflows_pb2.DeleteWorkflowResponse:
    return await api.workflows.DeleteWorkflow(DeleteWorkflowRequest(**fields), metadata=ZOE)


async def test_a_deleted_name_starts_nothing_and_says_why(api: LiveApi) -> None:
    """By name and by version; lists leave it out; other namespaces keep theirs."""
    await put(api, SOURCE)
    await put(api, SOURCE, namespace="other")
    answer = await delete(api, name="w")

    assert (answer.deleted, answer.replayed) == (1, False)
    for name in ("w", "w@1"):
        error = await refusal(api.runs.StartRun(runs_pb2.StartRunRequest(workflow=name)))
        assert (error.code, error.reason) == (StatusCode.NOT_FOUND, "WORKFLOW_DELETED")
        assert (error.metadata["name"], error.metadata["deleted_by"]) == (name, "zoe")
    assert (await refusal(get(api, name="w"))).reason == "WORKFLOW_DELETED"
    assert not (await api.workflows.ListWorkflows(ListWorkflowsRequest())).workflows
    assert not (await api.workflows.ListWorkflows(ListWorkflowsRequest(name="w"))).workflows
    assert (await get(api, name="w", namespace="other")).version == 1


async def test_storing_is_safe_to_repeat_once_the_name_is_deleted(api: LiveApi) -> None:
    """The answer is that of the first time, as far as what it told of is still there."""
    await put(api, SOURCE, request_id="r")
    await delete(api, name="w")

    again = await put(api, SOURCE, request_id="r")

    gone = workflows_pb2.Workflow(namespace="default", name="w", version=1)
    assert (again.created, again.replayed, again.workflow) == (True, True, gone)


async def test_storing_succeeds_beside_deletions(api: LiveApi) -> None:
    """Each store has its own answer, whatever becomes of the version a moment later."""
    await put(api, SOURCE)
    answers = await asyncio.gather(
        *(put(api, SOURCE) if number % 2 else delete(api, name="w") for number in range(60))
    )

    stored = [each for each in answers if isinstance(each, workflows_pb2.PutWorkflowResponse)]
    assert all(each.workflow.content_hash for each in stored)
    versions = [each.workflow.version for each in stored if each.created]
    assert len(versions) == len(set(versions))


async def test_deleting_is_safe_to_repeat(api: LiveApi) -> None:
    """With and without a request id; a name that never was is not found."""
    await put(api, SOURCE)
    first = await delete(api, name="w", request_id="r")
    again = await delete(api, name="w", request_id="r")
    late = await delete(api, name="w")
    other = await refusal(delete(api, name="v", request_id="r"))
    never = await refusal(delete(api, name="v"))
    back = await put(api, SOURCE)

    assert (first.deleted, again.deleted, again.replayed, late.deleted) == (1, 1, True, 0)
    assert (other.reason, never.reason) == ("REQUEST_ID_REUSED", "WORKFLOW_NOT_FOUND")
    assert (back.created, back.workflow.version) == (True, 2)


async def test_runs_of_a_deleted_workflow_go_on_and_stay_readable(api: LiveApi) -> None:
    """One that has begun goes on to its end and can begin anew; its definition can be read."""
    await put(api, "workflow w { gate human_review { name = check } call echo }")
    run_id = await start(api, workflow="w")
    await waiting(api, run_id)
    await delete(api, name="w")
    await api.gates.ResolveGate(
        gates_pb2.ResolveGateRequest(
            run_gate=gates_pb2.RunGate(run_id=run_id, gate_name="check"),
            decision=gates_pb2.GATE_DECISION_APPROVE,
        )
    )
    done = await ended(api, run_id)
    full = await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id, view=types_pb2.VIEW_FULL))
    drawn = await api.workflows.GraphWorkflow(workflows_pb2.GraphWorkflowRequest(run_id=run_id))

    assert done.status == types_pb2.RUN_STATUS_COMPLETED
    assert full.run.definition_snapshot.startswith('{"name":"w"')
    assert "check" in drawn.graph


async def test_a_step_that_calls_a_deleted_workflow_fails(api: LiveApi) -> None:
    """It is looked up by its name when the step begins, as one that never was stored."""
    await put(api, SOURCE.replace("inputs { a required }", ""))
    parent = "workflow p { gate human_review { name = check } call workflow w }"
    run_id = await start(api, parent)
    await waiting(api, run_id)
    await delete(api, name="w")
    await api.gates.ResolveGate(
        gates_pb2.ResolveGateRequest(
            run_gate=gates_pb2.RunGate(run_id=run_id, gate_name="check"),
            decision=gates_pb2.GATE_DECISION_APPROVE,
        )
    )
    done = await ended(api, run_id)

    assert done.status == types_pb2.RUN_STATUS_FAILED
    assert "w" in done.error


async def test_workflows_and_versions_are_listed_page_by_page(api: LiveApi) -> None:
    for name in "bac":
        await put(api, f"workflow {name} {{ call echo }}")
    await put(api, "workflow b { call other }")

    async def pages(**fields: Any) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        token = ""
        while True:
            page = await api.workflows.ListWorkflows(
                ListWorkflowsRequest(page_size=1, page_token=token, **fields)
            )
            seen += [(each.name, each.version) for each in page.workflows]
            token = page.next_page_token
            if not token:
                return seen

    assert await pages() == [("a", 1), ("b", 2), ("c", 1)]
    assert await pages(name="b") == [("b", 2), ("b", 1)]
    assert await pages(namespace="other") == []


async def test_validating_answers_and_stores_nothing(api: LiveApi) -> None:
    good = await api.workflows.ValidateWorkflow(ValidateWorkflowRequest(source=SOURCE))
    bad = await api.workflows.ValidateWorkflow(
        ValidateWorkflowRequest(source="workflow w {\n  if a.b { call c }\n}")
    )
    broken = await api.workflows.ValidateWorkflow(ValidateWorkflowRequest(source="\x00"))
    strict = await api.workflows.ValidateWorkflow(
        ValidateWorkflowRequest(source="workflow w { call a { b = 1 } }", strict=True)
    )

    assert (good.valid, good.workflow.version, good.workflow.title) == (True, 0, "The W")
    assert (good.workflow.source, good.workflow.namespace) == (SOURCE, "default")
    assert not good.diagnostics
    (found,) = bad.diagnostics
    assert (bad.valid, found.code, found.line, found.column) == (False, "WF501", 2, 6)
    assert found.excerpt.split("\n")[0].endswith("if a.b { call c }")
    assert bad.HasField("workflow")
    assert (broken.valid, broken.HasField("workflow")) == (False, False)
    assert (strict.valid, strict.diagnostics[0].severity) == (False, types_pb2.SEVERITY_ERROR)
    assert (await refusal(get(api, name="w"))).code is StatusCode.NOT_FOUND
