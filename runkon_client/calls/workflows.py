"""Calls of WorkflowService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon.v1 import types_pb2, workflows_pb2
from runkon_client import values
from runkon_client.calls.call import Call, Page, mint_request_id, reader
from runkon_client.decode import decode_diagnostics, decode_workflow

if TYPE_CHECKING:
    from collections.abc import Mapping


def put_workflow(
    namespace: str,
    source: str,
    *,
    output_schemas: Mapping[str, str],
    snippets: Mapping[str, str],
    strict: bool,
    request_id: str,
) -> Call[values.StoredWorkflow]:
    """PutWorkflow."""
    return Call(
        "/runkon.v1.WorkflowService/PutWorkflow",
        workflows_pb2.PutWorkflowRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            source=source,
            output_schemas=output_schemas,
            snippets=snippets,
            strict=strict,
        ),
        reader(
            workflows_pb2.PutWorkflowResponse,
            lambda answer: values.StoredWorkflow(
                workflow=decode_workflow(answer.workflow),
                created=answer.created,
                diagnostics=decode_diagnostics(answer.diagnostics),
                replayed=answer.replayed,
            ),
        ),
    )


def get_workflow(namespace: str, name: str, version: int, *, full: bool) -> Call[values.Workflow]:
    """GetWorkflow."""
    return Call(
        "/runkon.v1.WorkflowService/GetWorkflow",
        workflows_pb2.GetWorkflowRequest(
            namespace=namespace,
            name=name,
            version=version,
            view=types_pb2.VIEW_FULL if full else types_pb2.VIEW_BASIC,
        ),
        reader(workflows_pb2.GetWorkflowResponse, lambda a: decode_workflow(a.workflow)),
    )


def list_workflows(
    namespace: str, name: str, *, page_size: int, token: str
) -> Call[Page[values.Workflow]]:
    """ListWorkflows."""
    return Call(
        "/runkon.v1.WorkflowService/ListWorkflows",
        workflows_pb2.ListWorkflowsRequest(
            namespace=namespace, name=name, page_size=page_size, page_token=token
        ),
        reader(
            workflows_pb2.ListWorkflowsResponse,
            lambda a: Page(tuple(map(decode_workflow, a.workflows)), a.next_page_token),
        ),
    )


def delete_workflow(namespace: str, name: str, *, request_id: str) -> Call[int]:
    """DeleteWorkflow."""
    return Call(
        "/runkon.v1.WorkflowService/DeleteWorkflow",
        workflows_pb2.DeleteWorkflowRequest(
            namespace=namespace, request_id=request_id or mint_request_id(), name=name
        ),
        reader(workflows_pb2.DeleteWorkflowResponse, lambda answer: answer.deleted),
    )


def validate_workflow(
    namespace: str,
    source: str,
    *,
    output_schemas: Mapping[str, str],
    snippets: Mapping[str, str],
    strict: bool,
    check_served: bool,
) -> Call[values.Validation]:
    """ValidateWorkflow."""
    return Call(
        "/runkon.v1.WorkflowService/ValidateWorkflow",
        workflows_pb2.ValidateWorkflowRequest(
            namespace=namespace,
            source=source,
            output_schemas=output_schemas,
            snippets=snippets,
            strict=strict,
            check_served=check_served,
        ),
        reader(
            workflows_pb2.ValidateWorkflowResponse,
            lambda answer: values.Validation(
                valid=answer.valid,
                diagnostics=decode_diagnostics(answer.diagnostics),
                workflow=decode_workflow(answer.workflow) if answer.HasField("workflow") else None,
            ),
        ),
    )


def format_workflow(namespace: str, source: str) -> Call[values.FormattedWorkflow]:
    """FormatWorkflow."""
    return Call(
        "/runkon.v1.WorkflowService/FormatWorkflow",
        workflows_pb2.FormatWorkflowRequest(namespace=namespace, source=source),
        reader(
            workflows_pb2.FormatWorkflowResponse,
            lambda answer: values.FormattedWorkflow(
                formatted=answer.formatted,
                changed=answer.changed,
                diagnostics=decode_diagnostics(answer.diagnostics),
            ),
        ),
    )


def graph_workflow(
    namespace: str, workflow: str, *, source: str, run_id: str, graph_format: values.GraphFormat
) -> Call[str]:
    """GraphWorkflow, of exactly one subject."""
    if sum(map(bool, (workflow, source, run_id))) != 1:
        raise ValueError("a picture needs one of: the name of a workflow, a source, a run's id")
    request = workflows_pb2.GraphWorkflowRequest(
        namespace=namespace,
        format=workflows_pb2.GraphFormat.Value(f"GRAPH_FORMAT_{graph_format.name}"),
    )
    if workflow:
        request.workflow = workflow
    elif source:
        request.source = source
    else:
        request.run_id = run_id
    return Call(
        "/runkon.v1.WorkflowService/GraphWorkflow",
        request,
        reader(workflows_pb2.GraphWorkflowResponse, lambda answer: answer.graph),
    )
