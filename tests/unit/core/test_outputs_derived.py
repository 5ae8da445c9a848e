"""Shapes, markers and contexts of structured outputs."""

from __future__ import annotations

from typing import Any

import pytest

from runkon_server.core.outputs_check import first_problem
from runkon_server.core.outputs_derived import context_of, holds, markers_of
from runkon_server.core.outputs_schema import schema_of

SCHEMA = schema_of(
    "s",
    {
        "fields": {
            "title": "string",
            "score?": "number",
            "level?": "enum(low, high)",
            "tags?": {"type": "array", "items": "string"},
            "findings?": {"type": "array", "items": {"severity": "string"}},
            "anything?": "array",
            "objects?": {"type": "array", "items": "object"},
            "inner?": {"type": "object", "fields": {"n": "number"}},
            "free?": "object",
        }
    },
)
OUTPUT: dict[str, Any] = {
    "ok": True,
    "level": "high",
    "score": 7,
    "title": "äb",
    "findings": [{"severity": "high"}, {"severity": "high"}, {"severity": 1}, "x"],
    "none": None,
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"title": "t", "more": 1}, None),
        ({"title": "t", "anything": [1, {}], "objects": [1, "x"], "free": {"a": 1}}, None),
        ({"title": "t", "score": 1.5, "level": "low", "tags": [], "inner": {"n": 1}}, None),
        ([], "an object is wanted, not an array"),
        ({}, "`title` is missing"),
        ({"title": None}, "`title`: a string is wanted, not null"),
        ({"title": "t", "score": None}, "`score`: a number is wanted, not null"),
        ({"title": "t", "score": True}, "`score`: a number is wanted, not a boolean"),
        ({"title": "t", "level": "Low"}, "`level`: one of low, high is wanted"),
        ({"title": "t", "tags": "x"}, "`tags`: an array is wanted, not a string"),
        ({"title": "t", "tags": ["x", 1]}, "`tags[1]`: a string is wanted, not a number"),
        (
            {"title": "t", "findings": [{"severity": "x"}, {}]},
            "`findings[1].severity` is missing",
        ),
        ({"title": "t", "findings": ["x"]}, "`findings[0]`: an object is wanted, not a string"),
        ({"title": "t", "inner": {"n": "1"}}, "`inner.n`: a number is wanted, not a string"),
        ({"title": "t", "free": []}, "`free`: an object is wanted, not an array"),
    ],
)
def test_145_first_problem_names_its_field(value: object, problem: str | None) -> None:
    """Unknown fields are allowed, null is not absence, and what is not declared is not checked."""
    assert first_problem(SCHEMA, value) == problem


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("findings[severity == high].length > 1", True),
        ("findings[severity == high].length == 2", True),
        ("findings[severity==low].length < 1", True),
        ("findings[severity == 1].length > 0", False),
        ("title[severity == x].length == 0", False),
        ("findings.length == 4", True),
        ("title.length == 3", True),
        ("score.length < 9", False),
        ("ok == true", True),
        ("ok == false", False),
        ("ok == True", False),
        ("level == high", True),
        ("level == hig", False),
        ("score == 7.0", True),
        ("score == x", False),
        ("score < 8", True),
        ("score > 8", False),
        ("level > 1", False),
        ("ok < 2", False),
        ("score < many", False),
        ("none == null", False),
        ("missing == 1", False),
        ("score >= 7", False),
        ("score != 7", False),
        ("ok == true and score > 1", False),
        ("", False),
        ("level", False),
    ],
)
def test_146_expressions(rule: str, expected: bool) -> None:  # noqa: FBT001
    """The first form that matches decides; what is not understood is false."""
    assert holds(rule, OUTPUT) is expected


def test_146_only_the_rules_of_a_schema_apply() -> None:
    """Sorted by name; the default rules are gone."""
    rules = {"zeta": "score > 1", "alpha": "level == high", "no": "score > 9"}
    schema = schema_of("s", {"fields": {}, "markers": rules})
    none = schema_of("s", {"fields": {}, "markers": {}})

    assert markers_of(schema, {**OUTPUT, "approved": False}) == ("alpha", "zeta")
    assert markers_of(none, {"approved": False}) == ()


@pytest.mark.parametrize(
    ("output", "markers"),
    [
        ({}, ()),
        ({"approved": True, "findings": []}, ()),
        ({"approved": False}, ("not_approved",)),
        ({"approved": "false", "findings": "x"}, ()),
        (
            {"findings": [{"severity": "critical"}, {"severity": "high"}, {"severity": "high"}]},
            ("has_critical_findings", "has_findings", "has_high_findings"),
        ),
        ({"findings": [{"severity": ["high"]}, 1]}, ("has_findings",)),
    ],
)
def test_146_default_rules(output: dict[str, Any], markers: tuple[str, ...]) -> None:
    """Those of reviews, each marker once, sorted."""
    assert markers_of(SCHEMA, output) == markers


@pytest.mark.parametrize(
    ("output", "context"),
    [
        ({"context": "c", "summary": "s", "first": "f"}, "c"),
        ({"context": 1, "summary": "s", "first": "f"}, "s"),
        ({"first": "f", "second": "g"}, "f"),
        ({"second": "g"}, "g"),
        ({"undeclared": "u"}, ""),
    ],
)
def test_context_is_the_best_text_there_is(output: dict[str, Any], context: str) -> None:
    """`context`, `summary`, then the first declared text that is present."""
    fields = {"first?": "string", "number?": "number", "second?": "string", "summary?": "string"}

    assert context_of(schema_of("s", {"fields": fields}), output) == context
