"""What the checker finds in a workflow by itself, and what the server does not run yet."""

from __future__ import annotations

import pytest

from runkon_server.dsl.ast import Script
from runkon_server.dsl.check import check
from runkon_server.dsl.unsupported import NOT_SERVED, refuse_unsupported
from support.workflows import accepted

EACH = "foreach f { over = a max_parallel = 1 workflow = c }"


def found(text: str) -> list[str]:
    return [each.code for each in check(accepted(text))]


def hint(text: str) -> str:
    (problem,) = check(accepted(text))
    assert problem.hint is not None
    return problem.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call x if x.m { }", []),
        ("if x.m { } call x", ["WF501"]),
        ("unless x.m { } call x", ["WF501"]),
        ('call "ops/scan.md" if scan.m { }', []),
        ("script s { run = a } if s.m { }", []),
        (f"{EACH} if f.m {{ }}", []),
        ("parallel { call a call b } if a.m { } if b.m { }", []),
        ("parallel { name = both call a } if both.m { }", []),
        ("parallel { call a } if both.m { }", ["WF501"]),
        ("call x parallel { call a { if = x.m } }", []),
        ("while x.m { max_iterations = 1 call x }", ["WF503"]),
        ("call x while x.m { max_iterations = 1 call x }", []),
        ("do { max_iterations = 1 call x } while x.m", []),
        ("do { max_iterations = 1 call x } while y.m", ["WF504"]),
        ("do { call x } if x.m { }", []),
        ("if x.m { call y } call x if y.m { }", ["WF501"]),
        ("call x always { if x.m { } if y.m { } }", ["WF501"]),
        ("call x gate quality_gate { source = x threshold = 1 }", []),
        ("gate quality_gate { source = x threshold = 1 } call x", ["WF507"]),
        (f'{EACH} gate quality_gate {{ source = "foreach:f" threshold = 1 }}', []),
        ("inputs { dry boolean } if dry { }", []),
        ("inputs { dry } if dry { }", ["WF502"]),
        ("unless dry { }", ["WF502"]),
    ],
)  # fmt: skip
def test_v01_to_v05_and_v07_conditions_look_at_what_has_run(text: str, expected: list[str]) -> None:
    """V01 to V05 and V07; IMP-19 lets a foreach answer to its bare name."""
    assert found(text) == expected


def test_behind_an_unknown_child_any_step_may_have_run() -> None:
    """Its steps are visible to the parent, and without a loader nobody knows them."""
    assert found("call workflow c if inner.m { }") == []
    assert found("if inner.m { } call workflow c") == ["WF501"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if x.m { }\n call x", "`x` comes only later, on line 2"),
        ("call build if bulid.m { }", "did you mean `build`?"),
        ("if x.m { }", "put a step `x` before it"),
        ("gate deploy { } if deploy.m { }", "gates leave nothing that a condition could look at"),
        ("inputs { dry } if dry { }", "declare it as `dry boolean`"),
        ("call x if x { }", "`x` is a step: write `x.marker`"),
        ("inputs { ready boolean } if redy { }", "did you mean `ready`?"),
    ],
)  # fmt: skip
def test_hints_say_what_to_do(text: str, expected: str) -> None:
    assert hint(text) == expected


def test_suggestions_are_bounded() -> None:
    """They cost more than the check; the first ones do."""
    problems = check(accepted("call build " + "if bulid.m { } " * 50))
    hints = [each.hint for each in problems]

    assert hints.count("did you mean `build`?") == 20
    assert len(hints) == 50


@pytest.mark.parametrize("name", ["workflow_run_id", "prior_output", "gate_feedback", "dry_run"])
def test_inputs_cannot_have_the_names_of_built_in_variables(name: str) -> None:
    """IMP-32: the value given would never be seen. A name such as `ticket_id` is normal."""
    assert found(f"inputs {{ ticket_id {name} }}") == ["WF552"]


def test_min_success_cannot_exceed_the_calls() -> None:
    assert found("parallel { min_success = 2 call a call b }") == []
    assert found("parallel { min_success = 3 call a call b }") == ["WF551"]


def test_a_construct_that_is_not_run_yet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any depth, with the place of the node; made so for the test, since all of them are run."""
    text = "do { always { script s { run = a } } }"
    assert refuse_unsupported(accepted(text)) == ()
    monkeypatch.setitem(NOT_SERVED, Script, "`script` steps")

    (problem,) = refuse_unsupported(accepted(text))

    assert problem.code == "WF601"
    assert problem.message.startswith("`script` steps")
    assert problem.span.line == 1
    assert problem.span.column > 1
