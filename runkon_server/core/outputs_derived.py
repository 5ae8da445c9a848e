"""Markers and context that follow from a structured output.

Source: engine.md §5.4 and §5.5 of the language's specification.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from runkon_server.core.outputs_schema import ScalarType

if TYPE_CHECKING:
    from runkon_server.core.outputs_schema import Schema

_NAME: Final = r"([\w-]+)"
_COUNTED: Final = re.compile(
    rf"{_NAME}\[\s*{_NAME}\s*==([^\]]*)\]\.length\s*(>|==|<)\s*(\d{{1,18}})"
)
_LENGTH: Final = re.compile(rf"{_NAME}\.length\s*(>|==|<)\s*(\d{{1,18}})")
_EQUAL: Final = re.compile(rf"{_NAME}\s*==(.*)", re.DOTALL)
_COMPARED: Final = re.compile(rf"{_NAME}\s*(<|>)(.*)", re.DOTALL)
_SEVERITIES: Final = ("critical", "high")


def markers_of(schema: Schema, output: dict[str, Any]) -> tuple[str, ...]:
    """The markers, sorted; by the rules of the schema if it has any, else by the default ones."""
    if schema.markers is None:
        return tuple(sorted(_default_markers(output)))
    return tuple(sorted(marker for marker, rule in schema.markers if holds(rule, output)))


def context_of(schema: Schema, output: dict[str, Any]) -> str:
    """What later steps are told: `context`, else `summary`, else the first text there is."""
    context = output.get("context")
    if isinstance(context, str):
        return context
    texts = [field.name for field in schema.fields if field.type == ScalarType("string")]
    texts.sort(key=lambda name: name != "summary")
    return next((output[name] for name in texts if isinstance(output.get(name), str)), "")


def _default_markers(output: dict[str, Any]) -> set[str]:
    markers: set[str] = set()
    if output.get("approved") is False:
        markers.add("not_approved")
    findings = output.get("findings")
    if isinstance(findings, list) and findings:
        markers.add("has_findings")
        found = {each.get("severity") for each in findings if _has_text_severity(each)}
        markers.update(f"has_{each}_findings" for each in _SEVERITIES if each in found)
    return markers


def _has_text_severity(finding: object) -> bool:
    return isinstance(finding, dict) and isinstance(finding.get("severity"), str)


def holds(rule: str, output: dict[str, Any]) -> bool:
    """Whether an expression is true of an output; one that is not understood is not.

    The first form that matches decides: `F[k == v].length OP n`, `F.length OP n`, `F == v`,
    `F < n` or `F > n`. OP is one of `>`, `==`, `<`.
    """
    rule = rule.strip()
    if (match := _COUNTED.fullmatch(rule)) is not None:
        return _holds_counted(match, output)
    if (match := _LENGTH.fullmatch(rule)) is not None:
        length = _length(output.get(match[1]))
        return length is not None and _compare(length, match[2], int(match[3]))
    if (match := _EQUAL.fullmatch(rule)) is not None:
        return _equals(output.get(match[1]), match[2].strip())
    if (match := _COMPARED.fullmatch(rule)) is not None:
        value, bound = output.get(match[1]), _number(match[3])
        return _is_number(value) and bound is not None and _compare(value, match[2], bound)
    return False


def _holds_counted(match: re.Match[str], output: dict[str, Any]) -> bool:
    values = output.get(match[1])
    if not isinstance(values, list):
        return False
    key, wanted = match[2], match[3].strip()
    count = sum(isinstance(each, dict) and each.get(key) == wanted for each in values)
    return _compare(count, match[4], int(match[5]))


def _length(value: object) -> int | None:
    if isinstance(value, list):
        return len(value)
    return len(value.encode()) if isinstance(value, str) else None


def _equals(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == ("true" if value else "false")
    if isinstance(value, str):
        return value == wanted
    return _is_number(value) and value == _number(wanted)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _compare(value: float, operator: str, bound: float) -> bool:
    match operator:
        case ">":
            return value > bound
        case "<":
            return value < bound
        case _:
            return value == bound
