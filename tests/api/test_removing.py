"""DeleteRun and DismissRun, and what callers see of a run that is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from grpc import StatusCode
from sqlalchemy import event

from runkon.v1 import gates_pb2, runs_pb2, types_pb2, workflows_pb2
from runkon.v1.gates_pb2 import ReportPullRequestRequest, ResolveGateRequest
from runkon.v1.runs_pb2 import DeleteRunRequest, DismissRunRequest, StreamRunEventsRequest
from support.live_api import refusal
from support.live_work import put
from support.rows import add_run, ulid

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from support.live_api import LiveApi


async def ended(api: LiveApi, source: str = "workflow w { call echo }") -> types_pb2.Run:
    run_id = (await api.runs.StartRun(runs_pb2.StartRunRequest(source=source))).run.id
    return (await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))).run


async def test_a_deleted_run_is_gone_and_stays_gone(api: LiveApi) -> None:
    """Idempotent; GetRun tells how it ended, lists have it no more."""
    run = await ended(api)
    request = DeleteRunRequest(run_id=run.id, request_id="once")

    first = await api.runs.DeleteRun(request)
    replay = await api.runs.DeleteRun(request)
    again = await api.runs.DeleteRun(DeleteRunRequest(run_id=run.id))
    gone = await refusal(api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run.id)))

    assert (first.deleted, first.replayed) == (1, False)
    assert (replay.deleted, replay.replayed) == (0, True)
    assert (again.deleted, again.replayed) == (0, False)
    assert (gone.code, gone.reason) == (StatusCode.NOT_FOUND, "RUN_PURGED")
    assert gone.metadata["status"] == "completed"
    assert gone.metadata["last_seq"] == str(run.last_seq)
    purged_at = datetime.fromisoformat(gone.metadata["purge_time"])
    assert run.end_time.ToDatetime(UTC).replace(microsecond=0) <= purged_at <= datetime.now(UTC)
    assert gone.metadata["purge_time"] in gone.message
    assert not (await api.runs.ListRuns(runs_pb2.ListRunsRequest())).runs


async def test_cursors_of_a_deleted_run_have_expired_but_for_the_one_at_its_end(
    api: LiveApi,
) -> None:
    """Below the floor, one below the end, at the end, above it."""
    run = await ended(api)
    await api.runs.DeleteRun(DeleteRunRequest(run_id=run.id))

    for after in (0, run.last_seq - 1):
        listing = runs_pb2.ListRunEventsRequest(run_id=run.id, after_seq=after)
        expired = await refusal(api.runs.ListRunEvents(listing))
        assert (expired.code, expired.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        assert expired.metadata["oldest_seq"] == str(run.last_seq + 1)
    listing = runs_pb2.ListRunEventsRequest(run_id=run.id, after_seq=run.last_seq)
    assert not (await api.runs.ListRunEvents(listing)).events
    listing = runs_pb2.ListRunEventsRequest(run_id=run.id, after_seq=run.last_seq + 1)
    assert (await refusal(api.runs.ListRunEvents(listing))).reason == "CURSOR_AHEAD"
    frames = [
        frame.WhichOneof("frame")
        async for frame in api.runs.StreamRunEvents(
            StreamRunEventsRequest(run_id=run.id, after_seq=run.last_seq)
        )
    ]
    assert frames == ["header", "end"]


async def test_every_question_about_a_deleted_run_is_told_that_it_was_removed(
    api: LiveApi,
) -> None:
    """As GetRun: why it does not move, its state in a stream, its end, steps and picture."""
    run = await ended(api)
    await api.runs.DeleteRun(DeleteRunRequest(run_id=run.id))
    told = await refusal(api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run.id)))
    stream = api.runs.StreamRunEvents(StreamRunEventsRequest(run_id=run.id, from_snapshot=True))

    for asked in (
        api.runs.ExplainRun(runs_pb2.ExplainRunRequest(run_id=run.id)),
        stream.read(),
        api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run.id)),
        api.runs.ListSteps(runs_pb2.ListStepsRequest(run_id=run.id)),
        api.workflows.GraphWorkflow(workflows_pb2.GraphWorkflowRequest(run_id=run.id)),
    ):
        refused = await refusal(asked)
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "RUN_PURGED")
        assert (refused.message, refused.metadata) == (told.message, told.metadata)
    elsewhere = runs_pb2.ExplainRunRequest(run_id=run.id, namespace="other")
    assert (await refusal(api.runs.ExplainRun(elsewhere))).reason == "RUN_NOT_FOUND"


async def test_every_order_to_a_deleted_run_is_told_that_it_was_removed(api: LiveApi) -> None:
    """Cancel, resume, dismiss, votes and reports; not in a namespace that never had the run."""
    run = await ended(api)
    await api.runs.DeleteRun(DeleteRunRequest(run_id=run.id))
    told = await refusal(api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run.id)))
    by_name = gates_pb2.RunGate(run_id=run.id, gate_name="g")
    vote = gates_pb2.GATE_DECISION_APPROVE
    seen = gates_pb2.PullRequest(head_commit="c0ffee")

    def orders(namespace: str) -> list[Awaitable[object]]:
        gate_id = f"{run.id}0123456789"
        return [
            api.runs.CancelRun(runs_pb2.CancelRunRequest(namespace=namespace, run_id=run.id)),
            api.runs.ResumeRun(runs_pb2.ResumeRunRequest(namespace=namespace, run_id=run.id)),
            api.runs.DismissRun(DismissRunRequest(namespace=namespace, run_id=run.id)),
            api.gates.ResolveGate(
                ResolveGateRequest(namespace=namespace, run_gate=by_name, decision=vote)
            ),
            api.gates.ResolveGate(
                ResolveGateRequest(namespace=namespace, gate_id=gate_id, decision=vote)
            ),
            api.gates.ReportPullRequest(
                ReportPullRequestRequest(namespace=namespace, run_gate=by_name, pull_request=seen)
            ),
            api.gates.ReportPullRequest(
                ReportPullRequestRequest(namespace=namespace, gate_id=gate_id, pull_request=seen)
            ),
        ]

    for order in orders("default"):
        refused = await refusal(order)
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "RUN_PURGED")
        assert (refused.message, refused.metadata) == (told.message, told.metadata)
    for order in orders("other"):
        assert (await refusal(order)).reason == "RUN_NOT_FOUND"


async def test_a_tree_is_deleted_by_its_root(api: LiveApi) -> None:
    await put(api, "workflow child { call echo }")
    root = await ended(api, "workflow top { call workflow child }")
    (child,) = (
        await api.runs.ListRuns(
            runs_pb2.ListRunsRequest(filter=f"parent_workflow_run_id={root.id}")
        )
    ).runs

    refused = await refusal(api.runs.DeleteRun(DeleteRunRequest(run_id=child.id)))
    deleted = await api.runs.DeleteRun(DeleteRunRequest(run_id=root.id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RUN_IS_CHILD")
    assert refused.metadata["parent"] == root.id
    assert deleted.deleted == 2
    gone = await refusal(api.runs.GetRun(runs_pb2.GetRunRequest(run_id=child.id)))
    assert gone.reason == "RUN_PURGED"


async def test_what_has_not_ended_is_neither_deleted_nor_dismissed(api: LiveApi) -> None:
    """Nor is a tree in which some run lives; other namespaces' runs do not exist."""
    async with api.engine.reads.connect() as conn:
        live = await add_run(conn, ulid(1), status="running")
        await add_run(conn, ulid(2), status="completed")
        await add_run(conn, ulid(3), status="running", parent_workflow_run_id=ulid(2))
        await add_run(conn, ulid(4), namespace="other", status="completed")

    for run_id, reason in (
        (live, "RUN_STATE"),
        (ulid(2), "RUN_STATE"),
        (ulid(4), "RUN_NOT_FOUND"),
        (ulid(5), "RUN_NOT_FOUND"),
    ):
        refused = await refusal(api.runs.DeleteRun(DeleteRunRequest(run_id=run_id)))
        assert refused.reason == reason, run_id
    for run_id, reason in ((live, "RUN_STATE"), (ulid(4), "RUN_NOT_FOUND")):
        refused = await refusal(api.runs.DismissRun(DismissRunRequest(run_id=run_id)))
        assert refused.reason == reason, run_id


async def test_a_run_that_somebody_else_deletes_meanwhile_is_gone(
    api: LiveApi, database: str
) -> None:
    """It was seen and locked by the other, who commits before its status is asked for."""
    run = await ended(api)
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO run_tombstones (run_id, namespace, workflow_name, status, epoch,"
                      " last_seq, ended_at, is_swept) SELECT id, namespace, workflow_name, status,"
                      " epoch, last_seq, ended_at, true FROM workflow_runs")  # fmt: skip
        other.execute("DELETE FROM workflow_runs")
        commits = []

        def commit(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("SELECT status FROM workflow_runs"):
                other.commit()
                commits.append(statement)

        event.listen(api.engine.reads.sync_engine, "before_cursor_execute", commit)
        answer = await api.runs.DeleteRun(DeleteRunRequest(run_id=run.id))
        event.remove(api.engine.reads.sync_engine, "before_cursor_execute", commit)

    assert (len(commits), answer.deleted) == (1, 0)


async def test_a_dismissed_run_can_be_told_from_others_and_put_back(api: LiveApi) -> None:
    run = await ended(api)
    request = DismissRunRequest(run_id=run.id, request_id="d")

    dismissed = await api.runs.DismissRun(request)
    replay = await api.runs.DismissRun(request)
    reused = await refusal(
        api.runs.DismissRun(DismissRunRequest(run_id=run.id, request_id="d", undo=True))
    )
    listing = runs_pb2.ListRunsRequest(filter="dismissed = true")
    listed = (await api.runs.ListRuns(listing)).runs
    back = await api.runs.DismissRun(DismissRunRequest(run_id=run.id, undo=True))

    assert (dismissed.run.dismissed, dismissed.replayed) == (True, False)
    assert replay.replayed
    assert reused.reason == "REQUEST_ID_REUSED"
    assert [each.id for each in listed] == [run.id]
    assert not back.run.dismissed
    assert back.run.last_seq == run.last_seq
