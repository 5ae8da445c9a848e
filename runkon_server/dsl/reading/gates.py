"""Reading `gate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes, limits
from runkon_server.dsl.ast import ApprovalMode, Gate, Policy, QualityGate, StepField
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.reading.option_blocks import read_required_block
from runkon_server.dsl.reading.options import map_pairs
from runkon_server.dsl.reading.values import Text, TextList, TextMap

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Pairs
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.reading.options import Options
    from runkon_server.dsl.source import Span

QUALITY_GATE: Final = "quality_gate"
_THRESHOLD_MAX: Final = 100
_DAY_S: Final = 86_400


def read_gate(cursor: Cursor) -> Gate | QualityGate:
    """Read `gate TYPE { … }`."""
    start = cursor.start
    cursor.advance()
    gate_type = cursor.name("a gate type")
    span = cursor.span_from(start)
    construct = f"gate {gate_type}" if f"gate {gate_type}" in KEYS else "gate"
    options = read_required_block(cursor, construct)
    name = _gate_name(cursor, gate_type, span, options)
    if gate_type == QUALITY_GATE:
        return _quality_gate(name, options, span)
    options.check(construct, span, also="gate")
    return _gate(cursor, name, gate_type, options, span)


def _gate(cursor: Cursor, name: str, gate_type: str, options: Options, span: Span) -> Gate:
    mode = options.word("mode", ApprovalMode, default=ApprovalMode.MIN_APPROVALS)
    if mode is ApprovalMode.REVIEW_DECISION and "min_approvals" in options:
        options.report(
            codes.APPROVALS_WITH_REVIEW,
            "min_approvals",
            "`mode = review_decision` leaves no room for `min_approvals`",
        )
    timeout_s = options.seconds("timeout", at_most_ms=limits.GATE_TIMEOUT_MS)
    return Gate(
        name=name,
        gate_type=gate_type,
        prompt=options.text("prompt"),
        min_approvals=options.number("min_approvals", positive=True) or 1,
        approval_mode=mode,
        timeout_s=_DAY_S if timeout_s is None else timeout_s,
        on_timeout=options.word("on_timeout", Policy, default=Policy.FAIL),
        as_identity=options.text("as"),
        options=_selectable(cursor, options),
        approvers=options.number("approvers", positive=True) or 1,
        exclude_starter=options.flag("exclude_starter", default=False),
        span=span,
    )


def _quality_gate(name: str, options: Options, span: Span) -> QualityGate:
    if "options" in options:
        message = "a quality gate asks nobody, so it has no options to select"
        options.report_key(codes.OPTIONS_ON_QUALITY_GATE, "options", message)
    options.check("gate quality_gate", span, also="gate")
    threshold = options.number("threshold") or 0
    if threshold > _THRESHOLD_MAX:
        options.report(
            codes.THRESHOLD_RANGE, "threshold", f"`threshold` may be {_THRESHOLD_MAX} at most"
        )
    return QualityGate(
        name=name,
        source=options.text("source") or "",
        threshold=threshold,
        on_fail=options.word("on_fail", Policy, default=Policy.FAIL),
        as_identity=options.text("as"),
        span=span,
    )


def _selectable(cursor: Cursor, options: Options) -> Pairs | StepField | None:
    """What can be selected on approval: given here, or found in a step's output at run time."""
    value = options.value("options")
    if isinstance(value, TextMap):
        return map_pairs(value, cursor.problems)
    if isinstance(value, TextList):
        return tuple((text, text) for text in dict.fromkeys(item.text for item in value.items))
    if isinstance(value, Text):
        step, dot, field = value.text.partition(".")
        if not dot:
            message = "`options` must be a list, a map, or the field of a step: `step.field`"
            options.report(codes.BAD_OPTIONS_REFERENCE, "options", message)
        return StepField(step=step, field=field)
    return None


def _gate_name(cursor: Cursor, gate_type: str, span: Span, options: Options) -> str:
    """The name written, or the type, or `type-2`, … if that is taken already."""
    written = options.name("name")
    name = written or gate_type
    first = cursor.gates.take(name, span.offset)
    if first is None:
        return name
    line, _ = cursor.tokens.source.position(first)
    if written is not None:
        message = f"the gate on line {line} has the name `{name}` already"
        options.report(codes.DUPLICATE_GATE, "name", message)
        return name
    name = cursor.gates.take_numbered(gate_type, span.offset)
    cursor.problems.report(
        codes.NUMBERED_GATE,
        span.offset,
        span.end,
        f"this gate is called `{name}`, because the one on line {line} has the type's name",
        hint="give it a `name` that tells them apart",
    )
    return name
