"""Which validator a request goes through. A test asserts that no request type is missing."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2
from runkon_server.api.parsing import admin, gates, runs, workers, workflows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

VALIDATORS: Final[Mapping[type[Message], Callable[[Any], None]]] = MappingProxyType(
    {
        runs_pb2.StartRunRequest: runs.check_start_run,
        runs_pb2.BatchStartRunsRequest: runs.check_batch_start_runs,
        runs_pb2.GetRunRequest: runs.check_get_run,
        runs_pb2.ListRunsRequest: runs.check_list_runs,
        runs_pb2.CountRunsRequest: runs.check_count_runs,
        runs_pb2.CancelRunRequest: runs.check_cancel_run,
        runs_pb2.ResumeRunRequest: runs.check_resume_run,
        runs_pb2.DismissRunRequest: runs.check_run_mutation,
        runs_pb2.DeleteRunRequest: runs.check_run_mutation,
        runs_pb2.ExplainRunRequest: runs.check_explain_run,
        runs_pb2.AwaitRunRequest: runs.check_await_run,
        runs_pb2.ListStepsRequest: runs.check_list_steps,
        runs_pb2.GetStepRequest: runs.check_get_step,
        runs_pb2.ListFanOutItemsRequest: runs.check_list_fan_out_items,
        runs_pb2.ListRunEventsRequest: runs.check_list_run_events,
        runs_pb2.StreamRunEventsRequest: runs.check_stream_run_events,
        runs_pb2.StreamNamespaceEventsRequest: runs.check_stream_namespace_events,
        gates_pb2.StreamGatesRequest: gates.check_stream_gates,
        gates_pb2.ListGatesRequest: gates.check_list_gates,
        gates_pb2.GetGateRequest: gates.check_get_gate,
        gates_pb2.ResolveGateRequest: gates.check_resolve_gate,
        gates_pb2.ReportPullRequestRequest: gates.check_report_pull_request,
        workflows_pb2.PutWorkflowRequest: workflows.check_put_workflow,
        workflows_pb2.GetWorkflowRequest: workflows.check_get_workflow,
        workflows_pb2.ListWorkflowsRequest: workflows.check_list_workflows,
        workflows_pb2.DeleteWorkflowRequest: workflows.check_delete_workflow,
        workflows_pb2.ValidateWorkflowRequest: workflows.check_validate_workflow,
        workflows_pb2.FormatWorkflowRequest: workflows.check_format_workflow,
        workflows_pb2.GraphWorkflowRequest: workflows.check_graph_workflow,
        workers_pb2.WorkRequest: workers.check_work,
        workers_pb2.PollTasksRequest: workers.check_poll_tasks,
        workers_pb2.ReportTaskRequest: workers.check_report_task,
        workers_pb2.HeartbeatTaskRequest: workers.check_heartbeat_task,
        workers_pb2.ListWorkersRequest: workers.check_list_workers,
        admin_pb2.SetActionLimitRequest: admin.check_set_action_limit,
        admin_pb2.ListActionLimitsRequest: admin.check_list,
        admin_pb2.ClearActionLimitRequest: admin.check_clear_action_limit,
        admin_pb2.ListReplicasRequest: admin.check_list,
        admin_pb2.GetRetentionRequest: admin.check_get_retention,
        admin_pb2.SetRetentionRequest: admin.check_set_retention,
        admin_pb2.PurgeRunsRequest: admin.check_purge_runs,
    }
)


def validate(request: Message) -> None:
    """Return if the request keeps its limits, or is of a service that is not ours.

    Raises:
        InvalidArgumentError: it does not; with every violation.
    """
    validator = VALIDATORS.get(type(request))
    if validator is not None:
        validator(request)
