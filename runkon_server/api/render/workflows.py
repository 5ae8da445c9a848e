"""Workflows and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon.v1 import types_pb2, workflows_pb2
from runkon_server.api.render.values import timestamp
from runkon_server.dsl.codes import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.api.definitions import CheckedSource
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Source
    from runkon_server.store.rows import WorkflowRow

_TRIGGERS: Final[dict[str, int]] = {
    name.removeprefix("WORKFLOW_TRIGGER_").lower(): number
    for name, number in workflows_pb2.WorkflowTrigger.items()
}
_INPUT_TYPES: Final[dict[str, workflows_pb2.InputType.ValueType]] = {
    name.removeprefix("INPUT_TYPE_").lower(): number
    for name, number in workflows_pb2.InputType.items()
}
_INPUT: Final = ("name", "input_type", "required", "default", "description")


def render_workflow(workflow: WorkflowRow) -> workflows_pb2.Workflow:
    """A stored version; in the FULL view if the row has the source."""
    return workflows_pb2.Workflow(
        namespace=workflow.namespace,
        name=workflow.name,
        version=workflow.version,
        content_hash=workflow.content_hash,
        create_time=timestamp(workflow.created_at),
        created_by=workflow.created_by,
        source=workflow.source or "",
        output_schemas=workflow.output_schemas or {},
        snippets=workflow.snippets or {},
        definition_json=workflow.snapshot or "",
        **_head_fields(workflow.head),
    )


def render_unstored(
    checked: CheckedSource, request: workflows_pb2.ValidateWorkflowRequest, namespace: str
) -> workflows_pb2.Workflow:
    """A definition that could be read, in the FULL view; it has no version."""
    definition = checked.definition
    assert definition is not None
    head = {
        "title": definition.title,
        "description": definition.description,
        "trigger": definition.trigger,
        "targets": definition.targets,
        "group": definition.group,
        "inputs": [
            {name: getattr(declared, name) for name in _INPUT} for declared in definition.inputs
        ],
    }
    return workflows_pb2.Workflow(
        namespace=namespace,
        name=definition.name,
        content_hash=checked.content_hash,
        source=request.source,
        output_schemas=request.output_schemas,
        snippets=request.snippets,
        definition_json=checked.snapshot,
        **_head_fields(head),
    )


def _head_fields(head: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Workflow that its snapshot tells; the steps are not looked at."""
    return {
        "title": head.get("title") or "",
        "description": head.get("description") or "",
        "trigger": _TRIGGERS.get(head.get("trigger", ""), 0),
        "targets": head.get("targets") or (),
        "group": head.get("group") or "",
        "inputs": [_input(each) for each in head.get("inputs") or ()],
    }


def _input(declared: Mapping[str, Any]) -> workflows_pb2.WorkflowInput:
    return workflows_pb2.WorkflowInput(
        name=declared["name"],
        type=_INPUT_TYPES.get(
            declared.get("input_type", "string"), workflows_pb2.INPUT_TYPE_UNSPECIFIED
        ),
        required=declared.get("required", False),
        default_value=declared.get("default"),
        description=declared.get("description") or "",
    )


def render_diagnostic(found: Diagnostic, source: Source) -> types_pb2.Diagnostic:
    """A problem with the place in the source that it is about."""
    is_error = found.severity is Severity.ERROR
    span = found.span
    message = types_pb2.Diagnostic(
        code=found.code,
        severity=types_pb2.SEVERITY_ERROR if is_error else types_pb2.SEVERITY_WARNING,
        message=found.message,
        hint=found.hint or "",
    )
    if span.line:
        message.line, message.column = span.line, span.column
        message.end_line, message.end_column = source.position(span.end)
        message.length = max(1, span.length)
        # Between the head and the hint: the source line and the carets below it.
        message.excerpt = "\n".join(found.render(source).split("\n")[1:3])
    return message
