"""Reading conditions: `step.marker`, or the name of a boolean input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import BoolInput, StepMarker
from runkon_server.dsl.tokens import NAME_KINDS

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Condition
    from runkon_server.dsl.reading.cursor import Cursor


def read_condition(cursor: Cursor) -> Condition:
    """Read `step.marker` or `input`."""
    if cursor.text == "not" and cursor.peek() in NAME_KINDS:
        cursor.expected("a condition", hint="use `unless` for the opposite of `if`")
        cursor.advance()
    start = cursor.start
    name = cursor.name("a step or boolean input")
    if not cursor.accept("."):
        return BoolInput(name=name, span=cursor.span_from(start))
    marker = cursor.name("a marker")
    if cursor.kind == ".":
        cursor.expected("{", hint="a condition has two parts: `step.marker`")
        while cursor.accept("."):
            cursor.advance()
    return StepMarker(step=name, marker=marker, span=cursor.span_from(start))


def read_marker(cursor: Cursor) -> StepMarker:
    """Read `step.marker`, the only condition a loop may have."""
    condition = read_condition(cursor)
    if isinstance(condition, StepMarker):
        return condition
    span = condition.span
    if condition.name:
        message = f"a loop looks at a step's marker: `{condition.name}.…`"
        cursor.problems.report(codes.BAD_CONDITION, span.offset, span.end, message)
    return StepMarker(step=condition.name, marker="", span=span)
