"""Workflows: stored definitions, and what is wrong with those that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Severity(StrEnum):
    """How bad a diagnostic is: an error refuses the definition."""

    UNKNOWN = "unknown"
    ERROR = "error"
    WARNING = "warning"


class WorkflowTrigger(StrEnum):
    """What the author says starts the workflow; informative."""

    UNKNOWN = "unknown"
    MANUAL = "manual"
    PR = "pr"
    SCHEDULED = "scheduled"


class InputType(StrEnum):
    """What values an input takes: any text, or `true` and `false`."""

    UNKNOWN = "unknown"
    STRING = "string"
    BOOLEAN = "boolean"


class GraphFormat(StrEnum):
    """What a picture is written in: Markdown's Mermaid, Graphviz' DOT, JSON, or a drawing."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"
    SVG = "svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem at one place of a source; lines and columns count from 1, 0 means no place.

    `excerpt` is the source line with a caret line below it, ready to print.
    """

    code: str
    severity: Severity
    message: str
    hint: str
    line: int
    column: int
    end_line: int
    end_column: int
    length: int
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInput:
    """One declared input; `default_value` is None without a default."""

    name: str
    type: InputType
    required: bool
    default_value: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One version of a definition; version 0 is not stored.

    `source`, `output_schemas`, `snippets` and `definition_json` are empty unless the full view was
    asked for.
    """

    namespace: str
    name: str
    version: int
    content_hash: str
    title: str
    description: str
    trigger: WorkflowTrigger
    targets: tuple[str, ...]
    group: str
    inputs: tuple[WorkflowInput, ...]
    created_at: datetime | None
    created_by: str
    source: str
    output_schemas: Mapping[str, str]
    snippets: Mapping[str, str]
    definition_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWorkflow:
    """What `put_workflow` came to; `created` is false if the newest version has this content."""

    workflow: Workflow
    created: bool
    diagnostics: tuple[Diagnostic, ...]
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What `validate_workflow` found; `workflow` is None if the source could not be parsed."""

    valid: bool
    diagnostics: tuple[Diagnostic, ...]
    workflow: Workflow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormattedWorkflow:
    """What `format_workflow` made; `formatted` is empty if the source could not be read."""

    formatted: str
    changed: bool
    diagnostics: tuple[Diagnostic, ...]
