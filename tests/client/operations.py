"""What can be asked of a client: each operation with the answers of a server to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from client.peers import RUN_ID
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import (
    admin_pb2,
    explanations_pb2,
    gates_pb2,
    runs_pb2,
    types_pb2,
    workers_pb2,
    workflows_pb2,
)
from runkon_client import RunSpec
from runkon_client.values import (
    CheckState,
    ConflictPolicy,
    FanOutItemStatus,
    GateState,
    GraphFormat,
    PullRequest,
    PullRequestApproval,
    PullRequestCheck,
    ReviewDecision,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

RUN = types_pb2.Run(id=RUN_ID, status=types_pb2.RUN_STATUS_RUNNING, epoch=1)
DONE = types_pb2.Run(id=RUN_ID, status=types_pb2.RUN_STATUS_COMPLETED, epoch=1)
GATE = gates_pb2.Gate(id="g1", name="review", state=gates_pb2.GATE_STATE_PENDING)
WORKER = workers_pb2.ConnectedWorker(worker_id="w", actions=["*", "build"], concurrency=4)
LIMIT = admin_pb2.ActionLimit(action="build", concurrency=0, rate_per_second=0.5, queued=4)
REPLICA = admin_pb2.Replica(id="r1", version="1.2", live=True, runs_owned=3, workers=2)
KEPT = admin_pb2.Retention(namespace="team", keep_for=Duration(seconds=604_800), inherited=True)
WORKFLOW = workflows_pb2.Workflow(name="deploy", version=3)

PULL_REQUEST = PullRequest(
    head_commit="c0ffee",
    author="ada",
    approvals=(PullRequestApproval(reviewer="zoe", commit="c0ffee"),),
    review_decision=ReviewDecision.APPROVED,
    checks=(PullRequestCheck(name="lint", state=CheckState.SKIPPED),),
    url="https://forge.example/7",
)

PICTURES: dict[str, Callable[[Any], Any]] = {
    "workflow": lambda client: client.graph_workflow("deploy@3"),
    "source": lambda client: client.graph_workflow(
        source="workflow w {}", graph_format=GraphFormat.SVG
    ),
    "run_id": lambda client: client.graph_workflow(run_id=RUN_ID, graph_format=GraphFormat.DOT),
}

OPERATIONS: dict[str, tuple[dict[str, list[Message]], Callable[[Any], Any]]] = {
    "start_run": (
        {"StartRun": [runs_pb2.StartRunResponse(run=RUN, started=True)]},
        lambda client: client.start_run(
            "deploy",
            inputs={"ticket": "T-1"},
            key="order-1",
            conflict_policy=ConflictPolicy.USE_EXISTING,
            request_id="mine",
            labels={"team": "core"},
            priority=5,
            dry_run=True,
            fail_fast=False,
            start_delay=timedelta(seconds=90),
            trigger="nightly",
        ),
    ),
    "start_run of a source": (
        {"StartRun": [runs_pb2.StartRunResponse(run=RUN, started=True)]},
        lambda client: client.start_run(
            source="workflow w {}", snippets={"a": "b"}, output_schemas={"c": "d"}, request_id="s"
        ),
    ),
    "validate_run": (
        {"StartRun": [runs_pb2.StartRunResponse(run=types_pb2.Run(workflow_name="deploy"))]},
        lambda client: client.validate_run("deploy"),
    ),
    "start_runs": (
        {
            "BatchStartRuns": [
                runs_pb2.BatchStartRunsResponse(
                    outcomes=[
                        runs_pb2.StartRunOutcome(
                            response=runs_pb2.StartRunResponse(run=RUN, started=True)
                        ),
                        runs_pb2.StartRunOutcome(
                            error=types_pb2.ErrorStatus(
                                code=6, message="in use", reason="RUN_KEY_IN_USE"
                            )
                        ),
                    ]
                )
            ]
        },
        lambda client: client.start_runs([RunSpec("a"), RunSpec("b", key="k")], request_id="batch"),
    ),
    "resume_run": (
        {"ResumeRun": [runs_pb2.ResumeRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).resume(request_id="again"),
    ),
    "resume_run from a step": (
        {"ResumeRun": [runs_pb2.ResumeRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).resume(from_step="s1", request_id="again"),
    ),
    "resume_run from the start": (
        {"ResumeRun": [runs_pb2.ResumeRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).resume(restart=True, request_id="again"),
    ),
    "get_step": (
        {"GetStep": [runs_pb2.GetStepResponse(step=types_pb2.Step(id="s1"))]},
        lambda client: client.run(RUN_ID).get_step("s1"),
    ),
    "items": (
        {
            "ListFanOutItems": [
                runs_pb2.ListFanOutItemsResponse(
                    items=[types_pb2.FanOutItem(id="s1/0")], next_page_token="more"
                ),
                runs_pb2.ListFanOutItemsResponse(items=[types_pb2.FanOutItem(id="s1/1")]),
            ]
        },
        lambda client: client.run(RUN_ID).items("s1", status=FanOutItemStatus.FAILED),
    ),
    "report_pull_request": (
        {
            "ReportPullRequest": [
                gates_pb2.ReportPullRequestResponse(gate=GATE, pending_reason="1 of 2 approvals")
            ]
        },
        lambda client: client.gate("g1").report_pull_request(PULL_REQUEST, request_id="seen"),
    ),
    "report_pull_request by run and name": (
        {"ReportPullRequest": [gates_pb2.ReportPullRequestResponse(gate=GATE)]},
        lambda client: (
            client.run(RUN_ID)
            .gate("checks")
            .report_pull_request(PullRequest(head_commit="c0ffee"), request_id="seen")
        ),
    ),
    "get_run by key": (
        {"GetRun": [runs_pb2.GetRunResponse(run=RUN)]},
        lambda client: client.get_run(key="order-1", full=True),
    ),
    "list_runs": (
        {
            "ListRuns": [
                runs_pb2.ListRunsResponse(runs=[RUN], next_page_token="more"),
                runs_pb2.ListRunsResponse(next_page_token="and more"),
                runs_pb2.ListRunsResponse(runs=[DONE]),
            ]
        },
        lambda client: client.list_runs(oldest_first=True, page_size=1),
    ),
    "count_runs": (
        {"CountRuns": [runs_pb2.CountRunsResponse(count=7, exact=True)]},
        lambda client: client.count_runs("status = waiting"),
    ),
    "handle.get": (
        {"GetRun": [runs_pb2.GetRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).get(),
    ),
    "handle.at": (
        {"GetRun": [runs_pb2.GetRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).at(7),
    ),
    "handle.explain": (
        {
            "ExplainRun": [
                runs_pb2.ExplainRunResponse(
                    explanation=explanations_pb2.Explanation(
                        run_id=RUN_ID,
                        headline="waits",
                        blockers=[
                            explanations_pb2.Blocker(
                                kind=explanations_pb2.BLOCKER_KIND_CHILD_RUN,
                                child=explanations_pb2.Explanation(run_id="child"),
                            ),
                            explanations_pb2.Blocker(
                                task=explanations_pb2.BlockingTask(action="plan")
                            ),
                            explanations_pb2.Blocker(
                                owner=explanations_pb2.BlockingOwner(replica="r")
                            ),
                            explanations_pb2.Blocker(gate=GATE),
                        ],
                    )
                )
            ]
        },
        lambda client: client.run(RUN_ID).explain(),
    ),
    "handle.dismiss": (
        {"DismissRun": [runs_pb2.DismissRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).dismiss(undo=True, request_id="d"),
    ),
    "handle.delete": (
        {"DeleteRun": [runs_pb2.DeleteRunResponse(deleted=3)]},
        lambda client: client.run(RUN_ID).delete(request_id="d"),
    ),
    "handle.cancel": (
        {"CancelRun": [runs_pb2.CancelRunResponse(run=RUN)]},
        lambda client: client.run(RUN_ID).cancel("enough", force=True, request_id="c"),
    ),
    "handle.steps": (
        {
            "ListSteps": [
                runs_pb2.ListStepsResponse(steps=[types_pb2.Step(id="1")], next_page_token="t"),
                runs_pb2.ListStepsResponse(steps=[types_pb2.Step(id="2", condition_met=False)]),
            ]
        },
        lambda client: client.run(RUN_ID).steps(include_superseded=True),
    ),
    "handle.list_events": (
        {"ListRunEvents": [runs_pb2.ListRunEventsResponse(examined_seq=7, head_seq=9)]},
        lambda client: client.run(RUN_ID).list_events(5, page_size=2),
    ),
    "handle.gates": (
        {"ListGates": [gates_pb2.ListGatesResponse(gates=[GATE])]},
        lambda client: client.run(RUN_ID).gates(state=GateState.PENDING),
    ),
    "gates": (
        {"ListGates": [gates_pb2.ListGatesResponse(gates=[GATE, GATE])]},
        lambda client: client.gates(workflow_name="deploy", min_age=timedelta(minutes=1)),
    ),
    "gate.get": (
        {"GetGate": [gates_pb2.GetGateResponse(gate=GATE)]},
        lambda client: client.gate("g1").get(),
    ),
    "gate.get by name": (
        {
            "ListGates": [
                gates_pb2.ListGatesResponse(
                    gates=[
                        gates_pb2.Gate(id="g0", name="other", state=gates_pb2.GATE_STATE_PENDING),
                        GATE,
                        gates_pb2.Gate(id="g9", name="review", state=gates_pb2.GATE_STATE_APPROVED),
                    ]
                )
            ],
            "GetGate": [gates_pb2.GetGateResponse(gate=GATE)],
        },
        lambda client: client.run(RUN_ID).gate("review").get(),
    ),
    "gate.approve": (
        {"ResolveGate": [gates_pb2.ResolveGateResponse(gate=GATE)]},
        lambda client: client.gate("g1").approve(
            "fine", selections=["a"], on_behalf_of="bob", request_id="v"
        ),
    ),
    "gate.reject by name": (
        {"ResolveGate": [gates_pb2.ResolveGateResponse(gate=GATE)]},
        lambda client: client.run(RUN_ID).gate("review").reject("no", request_id="v"),
    ),
    "put_workflow": (
        {"PutWorkflow": [workflows_pb2.PutWorkflowResponse(workflow=WORKFLOW, created=True)]},
        lambda client: client.put_workflow("workflow deploy {}", strict=True, request_id="p"),
    ),
    "get_workflow": (
        {"GetWorkflow": [workflows_pb2.GetWorkflowResponse(workflow=WORKFLOW)]},
        lambda client: client.get_workflow("deploy", version=3),
    ),
    "list_workflows": (
        {"ListWorkflows": [workflows_pb2.ListWorkflowsResponse(workflows=[WORKFLOW])]},
        lambda client: client.list_workflows("deploy"),
    ),
    "workers": (
        {"ListWorkers": [workers_pb2.ListWorkersResponse(workers=[WORKER])]},
        lambda client: client.workers(page_size=9),
    ),
    "delete_workflow": (
        {"DeleteWorkflow": [workflows_pb2.DeleteWorkflowResponse(deleted=3)]},
        lambda client: client.delete_workflow("deploy", request_id="gone"),
    ),
    "admin.limits": (
        {
            "ListActionLimits": [
                admin_pb2.ListActionLimitsResponse(limits=[LIMIT], next_page_token="more"),
                admin_pb2.ListActionLimitsResponse(limits=[LIMIT]),
            ]
        },
        lambda client: client.admin.limits(page_size=1),
    ),
    "admin.set_limit": (
        {"SetActionLimit": [admin_pb2.SetActionLimitResponse(limit=LIMIT)]},
        lambda client: client.admin.set_limit(
            "build", concurrency=0, rate_per_s=0.5, request_id="l"
        ),
    ),
    "admin.clear_limit": (
        {"ClearActionLimit": [admin_pb2.ClearActionLimitResponse(cleared=True)]},
        lambda client: client.admin.clear_limit("build", request_id="c"),
    ),
    "admin.replicas": (
        {"ListReplicas": [admin_pb2.ListReplicasResponse(replicas=[REPLICA])]},
        lambda client: client.admin.replicas(),
    ),
    "admin.retention": (
        {"GetRetention": [admin_pb2.GetRetentionResponse(retention=KEPT)]},
        lambda client: client.admin.retention(),
    ),
    "admin.set_retention": (
        {"SetRetention": [admin_pb2.SetRetentionResponse(retention=KEPT)]},
        lambda client: client.admin.set_retention(timedelta(days=7), request_id="k"),
    ),
    "admin.set_retention for ever": (
        {"SetRetention": [admin_pb2.SetRetentionResponse()]},
        lambda client: client.admin.set_retention(None, request_id="k"),
    ),
    "admin.inherit_retention": (
        {"SetRetention": [admin_pb2.SetRetentionResponse()]},
        lambda client: client.admin.inherit_retention(request_id="i"),
    ),
    "admin.count_due": (
        {"PurgeRuns": [admin_pb2.PurgeRunsResponse(due=7)]},
        lambda client: client.admin.count_due(timedelta(days=7)),
    ),
    "validate_workflow": (
        {
            "ValidateWorkflow": [
                workflows_pb2.ValidateWorkflowResponse(
                    diagnostics=[types_pb2.Diagnostic(code="SYNTAX", line=2, column=3)]
                )
            ]
        },
        lambda client: client.validate_workflow("workflow"),
    ),
    "format_workflow": (
        {
            "FormatWorkflow": [
                workflows_pb2.FormatWorkflowResponse(
                    formatted="workflow w {\n}\n",
                    changed=True,
                    diagnostics=[types_pb2.Diagnostic(code="WF301", line=1, column=2)],
                )
            ]
        },
        lambda client: client.format_workflow("workflow w {}"),
    ),
    **{
        f"graph_workflow of a {subject}": (
            {"GraphWorkflow": [workflows_pb2.GraphWorkflowResponse(graph="digraph {}\n")]},
            draw,
        )
        for subject, draw in PICTURES.items()
    },
}
