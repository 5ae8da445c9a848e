"""Requests of WorkflowService. What a `source` says is looked at by the language."""

from __future__ import annotations

from typing import TypeAlias

from runkon.v1 import types_pb2, workflows_pb2
from runkon_server.api.parsing.checks import NAME_BYTES, Check
from runkon_server.api.parsing.runs import check_workflow_name

Definition: TypeAlias = workflows_pb2.PutWorkflowRequest | workflows_pb2.ValidateWorkflowRequest


def check_put_workflow(request: workflows_pb2.PutWorkflowRequest) -> None:
    """Refuse a PutWorkflowRequest that breaks a limit."""
    check = Check()
    check.request_id(request.request_id)
    _check_definition(check, request)


def check_validate_workflow(request: workflows_pb2.ValidateWorkflowRequest) -> None:
    """Refuse a ValidateWorkflowRequest that breaks a limit."""
    _check_definition(Check(), request)


def check_format_workflow(request: workflows_pb2.FormatWorkflowRequest) -> None:
    """Refuse a FormatWorkflowRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    if not request.source:
        check.wrong("source", "is required")
    check.done()


def check_graph_workflow(request: workflows_pb2.GraphWorkflowRequest) -> None:
    """Refuse a GraphWorkflowRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    match request.WhichOneof("subject"):
        case "source":
            if not request.source:
                check.wrong("source", "is required")
        case "workflow":
            check_workflow_name(check, request.workflow)
        case "run_id":
            check.run_id(request.run_id)
        case _:
            check.wrong("subject", "is required: a source, a workflow or a run_id")
    check.enum("format", request.format, workflows_pb2.GraphFormat)
    check.done()


def _check_definition(check: Check, request: Definition) -> None:
    check.namespace(request.namespace)
    if not request.source:
        check.wrong("source", "is required")
    check.texts("output_schemas", request.output_schemas)
    check.texts("snippets", request.snippets)
    check.done()


def check_get_workflow(request: workflows_pb2.GetWorkflowRequest) -> None:
    """Refuse a GetWorkflowRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.label("name", request.name, NAME_BYTES, required=True)
    if request.version < 0:
        check.wrong("version", "must not be negative")
    check.enum("view", request.view, types_pb2.View)
    check.done()


def check_delete_workflow(request: workflows_pb2.DeleteWorkflowRequest) -> None:
    """Refuse a DeleteWorkflowRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.label("name", request.name, NAME_BYTES, required=True)
    check.done()


def check_list_workflows(request: workflows_pb2.ListWorkflowsRequest) -> None:
    """Refuse a ListWorkflowsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.label("name", request.name, NAME_BYTES)
    check.page(request.page_size, request.page_token)
    check.enum("view", request.view, types_pb2.View)
    check.done()
