"""FormatWorkflow and GraphWorkflow over real gRPC: layouts, pictures, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grpc import StatusCode
from sqlalchemy import update

from runkon.v1 import runs_pb2, types_pb2, workflows_pb2
from runkon.v1.workflows_pb2 import (
    GRAPH_FORMAT_DOT,
    GRAPH_FORMAT_JSON,
    GRAPH_FORMAT_MERMAID,
    GRAPH_FORMAT_SVG,
    FormatWorkflowRequest,
    GraphWorkflowRequest,
    PutWorkflowRequest,
)
from runkon_server.dsl.ast import Script
from runkon_server.dsl.unsupported import NOT_SERVED as NOT_SERVED_KINDS
from runkon_server.store import tables
from support.live_api import refusal
from support.rows import ulid

if TYPE_CHECKING:
    import pytest

    from support.live_api import LiveApi

NOT_SERVED = "workflow w {\n  call workflow v\n  script lint { run = x }\n}\n"


async def formatted(api: LiveApi, source: str) -> workflows_pb2.FormatWorkflowResponse:
    return await api.workflows.FormatWorkflow(FormatWorkflowRequest(source=source))


async def drawn(api: LiveApi, **fields: Any) -> str:
    return (await api.workflows.GraphWorkflow(GraphWorkflowRequest(**fields))).graph


async def statuses(api: LiveApi, run_id: str) -> dict[str, str | None]:
    """What the picture of a run says of its steps, by label; a gate's is its name."""
    graph = json.loads(await drawn(api, run_id=run_id, format=GRAPH_FORMAT_JSON))
    return {
        each["label"]: each["status"]
        for each in graph["nodes"]
        if each["kind"] not in ("start", "end")
    }


async def put(api: LiveApi, source: str) -> None:
    await api.workflows.PutWorkflow(PutWorkflowRequest(source=source))


async def test_a_source_is_laid_out_and_then_stays_as_it_is(api: LiveApi) -> None:
    first = await formatted(api, "workflow w { // why\ncall a\n\n\n\n   call b }")
    again = await formatted(api, first.formatted)

    assert first.formatted == "workflow w {  // why\n  call a\n\n  call b\n}\n"
    assert (first.changed, list(first.diagnostics)) == (True, [])
    assert (again.formatted, again.changed) == (first.formatted, False)


async def test_a_long_source_is_laid_out_whole(api: LiveApi) -> None:
    """Long enough to be worked on off the event loop."""
    answer = await formatted(api, "workflow w {" + " call a" * 1000 + "}")

    assert answer.formatted.count("\n  call a") == 1000


async def test_a_source_that_cannot_be_read_is_not_laid_out(api: LiveApi) -> None:
    """What is wrong is the answer; there is no text that could replace the source."""
    answer = await formatted(api, "workflow w {\n  call\n}")
    (found,) = answer.diagnostics

    assert (answer.formatted, answer.changed) == ("", False)
    assert (found.severity, found.line) == (types_pb2.SEVERITY_ERROR, 3)
    assert found.excerpt


async def test_at_most_a_hundred_problems_are_told(api: LiveApi) -> None:
    answer = await formatted(api, "workflow w {" + " cal a" * 300 + "}")

    assert 1 <= len(answer.diagnostics) <= 100


async def test_what_is_not_served_yet_can_be_laid_out_and_drawn(
    api: LiveApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for a run only; a server is made that does not run scripts."""
    monkeypatch.setitem(NOT_SERVED_KINDS, Script, "`script` steps")
    layout = await formatted(api, NOT_SERVED)
    graph = await drawn(api, source=NOT_SERVED)
    error = await refusal(api.runs.StartRun(runs_pb2.StartRunRequest(source=NOT_SERVED)))

    assert (layout.formatted, list(layout.diagnostics)) == (NOT_SERVED, [])
    assert "lint" in graph
    assert error.reason == "DSL_UNSUPPORTED"


async def test_every_format_is_drawn(api: LiveApi) -> None:
    """Mermaid unless the request says otherwise."""
    beginnings = {
        workflows_pb2.GRAPH_FORMAT_UNSPECIFIED: "flowchart TD",
        GRAPH_FORMAT_MERMAID: "flowchart TD",
        GRAPH_FORMAT_DOT: "digraph",
        GRAPH_FORMAT_JSON: "{",
        GRAPH_FORMAT_SVG: "<svg",
    }
    for graph_format, beginning in beginnings.items():
        graph = await drawn(api, source="workflow w { call build-it }", format=graph_format)

        assert graph.startswith(beginning)
        assert "build-it" in graph
        assert graph.endswith("\n")


async def test_a_stored_workflow_is_drawn_by_name_or_version(api: LiveApi) -> None:
    await put(api, "workflow w { call first }")
    await put(api, "workflow w { call second }")

    assert "second" in await drawn(api, workflow="w")
    assert "first" in await drawn(api, workflow="w@1")


async def test_a_run_is_drawn_with_the_statuses_of_its_steps(api: LiveApi) -> None:
    """The gate waits, the step before it has completed, the one behind was not reached."""
    source = "workflow w { call echo gate human_review { name = check } call later }"
    run = (await api.runs.StartRun(runs_pb2.StartRunRequest(source=source))).run
    async for frame in api.runs.StreamRunEvents(runs_pb2.StreamRunEventsRequest(run_id=run.id)):
        if any(event.WhichOneof("payload") == "run_waiting" for event in frame.events.events):
            break

    assert await statuses(api, run.id) == {"echo": "completed", "check": "waiting", "later": None}


async def test_an_unreadable_source_is_refused_with_the_place(api: LiveApi) -> None:
    error = await refusal(drawn(api, source="workflow w {\n  call\n}"))

    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "DSL_SYNTAX")
    assert error.fields == ["source:3:1"]


async def test_a_request_that_draws_nothing_is_refused(api: LiveApi) -> None:
    """By the field that is missing or wrong."""
    wrong: dict[str, dict[str, Any]] = {
        "subject": {},
        "source": {"source": ""},
        "workflow": {"workflow": "w@0"},
        "run_id": {"run_id": "x"},
        "format": {"source": "x", "format": 9},
    }
    for field, fields in wrong.items():
        error = await refusal(drawn(api, **fields))

        assert (error.code, error.fields) == (StatusCode.INVALID_ARGUMENT, [field])


async def test_what_another_namespace_holds_is_not_found(api: LiveApi) -> None:
    await put(api, "workflow w { call echo }")
    run = (await api.runs.StartRun(runs_pb2.StartRunRequest(workflow="w"))).run
    for fields, reason in (
        ({"workflow": "w", "namespace": "x"}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": "w@2"}, "WORKFLOW_NOT_FOUND"),
        ({"run_id": run.id, "namespace": "x"}, "RUN_NOT_FOUND"),
        ({"run_id": ulid(1)}, "RUN_NOT_FOUND"),
    ):
        error = await refusal(drawn(api, **fields))

        assert (error.code, error.reason) == (StatusCode.NOT_FOUND, reason)


async def test_a_definition_with_unknown_steps_is_refused_by_name(api: LiveApi) -> None:
    """Stored by a newer server: the field that is not understood is named."""
    await put(api, "workflow w { call echo }")
    async with api.engine.reads.connect() as conn:
        snapshot = tables.definitions.c.snapshot
        row = (await conn.execute(tables.definitions.select())).mappings().one()
        newer = row["snapshot"].replace('"type":"call"', '"type":"dance"')
        assert newer != row["snapshot"]
        await conn.execute(update(tables.definitions).values({snapshot: newer}))
    error = await refusal(drawn(api, workflow="w"))

    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "DSL_UNSUPPORTED")
    assert error.fields == ["definition"]
