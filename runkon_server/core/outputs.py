"""What a step said, interpreted by the server, so that workers in every language get the same.

Source: engine.md §5 of the language's specification.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.facts import Outcome
from runkon_server.core.outputs_block import find_block, read_block
from runkon_server.core.outputs_check import first_problem
from runkon_server.core.outputs_derived import context_of, markers_of
from runkon_server.core.outputs_json import INVALID, LIMIT, OutputError, read_json, write_json
from runkon_server.core.rows import cut

if TYPE_CHECKING:
    from runkon_server.core.facts import Reported
    from runkon_server.core.outputs_schema import Schema

OUTPUT_BYTES_MAX: Final = 1024 * 1024
"""All texts of one report together."""
MARKERS_MAX: Final = 100
MARKER_BYTES_MAX: Final = 128
PLAIN_CONTEXT_LENGTH: Final = 2_000
"""Characters of a script's output that become its context if it has no block."""


def interpret(report: Reported, schema: Schema | None = None, *, is_script: bool) -> Reported:
    """A report of success as it counts: with markers, context and structured output.

    An attempt whose output does not match the schema has failed, and may be tried again. Without a
    schema a block that cannot be read is no output, and no failure.

    Args:
        report: as the worker made it.
        schema: the step's; None: it has none.
        is_script: a script's whole block is its structured output, and plain text its context.
    """
    try:
        if schema is not None:
            return _by_schema(report, schema)
        if report.raw_output is not None:
            return _generic(report, report.raw_output, is_script=is_script)
    except OutputError as error:
        return _failed(report, error)
    return report


def _by_schema(report: Reported, schema: Schema) -> Reported:
    """A worker that gives structured output may give markers and context itself as well."""
    value = _schema_value(report, schema)
    return _with_text(
        report,
        report.markers or _checked(markers_of(schema, value)),
        report.context or context_of(schema, value),
        write_json(value),
    )


def _schema_value(report: Reported, schema: Schema) -> dict[str, Any]:
    asked = f"schema `{schema.name}` asks for"
    output, block = report.structured_output, find_block(report.raw_output or "")
    if output is None and block is None:
        raise OutputError(INVALID, f"there is no output, which {asked}")
    try:
        value = read_block(block or "") if output is None else read_json(output)
    except OutputError as error:
        raise OutputError(error.code, f"the output that {asked} cannot be read: {error}") from None
    problem = first_problem(schema, value)
    if problem is not None or not isinstance(value, dict):
        raise OutputError(INVALID, f"the output does not match schema `{schema.name}`: {problem}")
    return value


def _generic(report: Reported, raw: str, *, is_script: bool) -> Reported:
    output = _flow_output(raw)
    if output is None:
        return _with_text(report, (), raw[:PLAIN_CONTEXT_LENGTH] if is_script else "", None)
    return _with_text(
        report,
        _checked(tuple(output.get("markers", ()))),
        output.get("context", ""),
        write_json(output) if is_script else None,
    )


def _flow_output(raw: str) -> dict[str, Any] | None:
    block = find_block(raw)
    if block is None:
        return None
    try:
        value = read_block(block)
    except OutputError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("context", ""), str):
        return None
    markers = value.get("markers", [])
    is_texts = isinstance(markers, list) and all(isinstance(each, str) for each in markers)
    return value if is_texts else None


def _with_text(
    report: Reported, markers: tuple[str, ...], context: str, output: str | None
) -> Reported:
    """The report with what was made of its text; as much of the text is kept as there is room."""
    room = OUTPUT_BYTES_MAX - sum(len(text.encode()) for text in (*markers, context, output or ""))
    if room < 0:
        raise OutputError(LIMIT, f"an output of more than {OUTPUT_BYTES_MAX} bytes")
    text = report.raw_output if report.result_text is None else report.result_text
    return replace(
        report,
        raw_output=None,
        result_text=None if text is None else cut(text, room),
        markers=markers,
        context=context,
        structured_output=output,
    )


def _checked(markers: tuple[str, ...]) -> tuple[str, ...]:
    if len(markers) > MARKERS_MAX:
        raise OutputError(LIMIT, f"{len(markers)} markers, at most {MARKERS_MAX} are allowed")
    longest = max((len(marker.encode()) for marker in markers), default=0)
    if longest > MARKER_BYTES_MAX:
        raise OutputError(LIMIT, f"a marker of {longest} bytes, of at most {MARKER_BYTES_MAX}")
    return markers


def _failed(report: Reported, error: OutputError) -> Reported:
    return replace(
        report,
        outcome=Outcome.FAILED,
        raw_output=None,
        result_text=report.raw_output if report.result_text is None else report.result_text,
        markers=(),
        context=None,
        structured_output=None,
        error=str(error),
        error_code=error.code,
        retryable=error.code == INVALID,
    )
