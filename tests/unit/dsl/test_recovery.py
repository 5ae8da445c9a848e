"""All mistakes of a file are told in one pass, and none of them twice."""

from __future__ import annotations

import pytest

from support.workflows import codes, places, read, wrap

FIVE_MISTAKES = """\
workflow release {
  meta { trigger = manul }
  inputs { version, channel }
  call build { timeout = 2h }
  iff build.ok {
    call test
  }
  gate human_review {
    on_timeout = approve
  }
}
"""


def test_five_unrelated_mistakes_are_five_errors() -> None:
    """One wrong word, one comma, one bare duration, one misspelt keyword, one wrong choice."""
    assert places(FIVE_MISTAKES) == [
        ("WF306", 2, 20),
        ("WF208", 3, 19),
        ("WF201", 4, 27),
        ("WF204", 5, 3),
        ("WF306", 9, 18),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call x { retries: 2 as: me }", ["WF101", "WF101"]),
        ("call x { as = 'me' retries = 2 }", ["WF101"]),
        ("call x { as = “me” retries = 2 }", ["WF101"]),
        ("call x { retries = -1 }", ["WF101"]),
        ("call größe { as = é }", ["WF101", "WF101"]),
        ("call x; call y;", ["WF101", "WF101"]),
        ("if a.b && c.d { call x }", ["WF101"]),
        ("/* a comment */ call x", ["WF101"]),
        ("call x { retries 2 as = me }", ["WF201"]),
        ("call x { as = retries = 2 }", ["WF201"]),
        ("call x { as = }", ["WF201"]),
        ("call x { as == me }", ["WF201"]),
        ("call x { with = [a b }", ["WF201"]),
        ("call x { with = [a b retries = 2 }", ["WF201"]),
        ("call x { with = [a,,b] }", ["WF208"]),
        ("call x { as = a.b.c retries = 2 }", ["WF201"]),
        ("call x { as = script.a retries = 2 }", ["WF201"]),
        ("call x { as = do retries = 2 }", ["WF201"]),
        ("call x { output = do.yaml retries = 2 }", ["WF201"]),
        ("call x { as = a. }", ["WF201"]),
        ("call x { with = { a = b } retries = 2 }", ["WF304"]),
        ("script s { run = x env = [a] }", ["WF304"]),
        ("parallel { call x { if = ready } }", ["WF309"]),
        ("call x { with = [ . a ] retries = 2 }", ["WF201"]),
        ("call x { max_turns = 0.x retries = 2 }", ["WF201"]),
        ("call x { as = script..a retries = 2 }", ["WF201"]),
        ("call 3 call y", ["WF201"]),
        ("do { max_iterations = 2 } while { }", ["WF201"]),
        ("workflow", ["WF209"]),
        ("call x { max_turns = 0.5 retries = 2 }", ["WF201"]),
        ("call x { script = y }", ["WF201"]),
        ("call x { ] retries = 2 }", ["WF201"]),
        ("call x { call y call z } call u", ["WF201"]),
        ("call 3x call y", ["WF201"]),
        ("call a.b { }", ["WF201"]),
        ("call gate { }", ["WF201"]),
        ("call { }", ["WF201"]),
        ("call workflow { }", ["WF201"]),
        ('call workflow "x" { }', ["WF201"]),
        ("call workflow 3x { }", ["WF201"]),
        ("script { run = x }", ["WF201"]),
        ("gate human_review call x", ["WF201"]),
        ("gate human_review", ["WF201"]),
        ("if { call x }", ["WF201"]),
        ("if a. { call x }", ["WF201"]),
        ("if a.b.c { call x }", ["WF201"]),
        ("unless not a.b { call x }", ["WF201"]),
        ("while x { max_iterations = 2 }", ["WF309"]),
        ("do { max_iterations = 2 } while x", ["WF309"]),
        ("if a.b { call x } else if c.d { call y }", ["WF204"]),
        ("foo { a = 1 } call x { }", ["WF204"]),
        ("{ call x }", ["WF201"]),
        ("= call x", ["WF201"]),
        ("call x, call y", ["WF208"]),
        ("max_iterations = 2 call x", ["WF316"]),
        ('call x title = "y" call z', ["WF316"]),
        ("if a.b { meta { title = x } call x }", ["WF209"]),
        ("workflow v { call x }", ["WF209"]),
        ("meta call x", ["WF201"]),
        ("inputs", ["WF201"]),
        ("inputs { a = 1 b }", ["WF201"]),
        ("inputs { a default 1 b }", ["WF201"]),
        ("inputs { a default = [1] }", ["WF304"]),
        ("inputs { a { } b }", ["WF201"]),
        ("parallel { while x.m { max_iterations = 1 } call x }", ["WF209"]),
        ("parallel { branch call x }", ["WF201"]),
        ("while x.m { max_iteration = 2 }", ["WF303"]),
        ("foreach f { }", ["WF303"]),
    ],
)
def test_one_slip_does_not_cascade(text: str, expected: list[str]) -> None:
    """Each text is repaired so that the rest of it is read as it was meant."""
    assert codes(text) == expected


def test_a_missing_brace_of_options_is_found_where_the_next_step_starts() -> None:
    text = """\
workflow w {
  call x {
    retries = 1
  call y { retires = 2 }
}
"""
    assert places(text) == [("WF203", 4, 3), ("WF301", 4, 12)]


def test_a_missing_brace_of_a_block_points_at_the_indentation() -> None:
    text = """\
workflow w {
  if a.b {
    call x {
      retries = 1
  }
  call y
}
"""
    (problem,) = read(text).diagnostics

    assert problem.hint == "the `{` at line 3, column 12 and its `}` are indented differently"


def test_a_missing_brace_of_inputs_is_found_where_the_next_step_starts() -> None:
    text = "workflow w {\n  inputs {\n    a\n  call x { }\n}\n"

    assert places(text) == [("WF201", 4, 3)]


def test_keywords_that_start_a_line_are_inputs_when_the_braces_agree() -> None:
    text = "workflow w {\n  inputs {\n    call x\n  }\n}\n"
    definition = read(text).definition

    assert definition is not None
    assert [each.name for each in definition.inputs] == ["call", "x"]


def test_a_missing_opening_brace_is_assumed_when_one_closes_too_much() -> None:
    assert codes("if a.b call x } call y") == ["WF201"]


def test_text_between_a_head_and_its_brace_is_skipped() -> None:
    assert codes("if a.b == true { cal x } call y") == ["WF201", "WF204"]


def test_text_behind_a_surplus_brace_is_still_read() -> None:
    text = "workflow w {\n  call x }\n  call y { retries = many }\n}\n"

    assert places(text) == [("WF202", 3, 3), ("WF305", 3, 22)]


def test_a_surplus_brace_is_told_as_such() -> None:
    (problem,) = read("workflow w { call x } }").diagnostics

    assert (problem.code, problem.span.column) == ("WF202", 23)
    assert "closes nothing" in problem.message


def test_an_unclosed_string_is_blamed_on_the_first_that_spans_lines() -> None:
    """One missing quote turns all later strings inside out; nothing about them is told."""
    text = """\
workflow w {
  call x { as = "me }
  call y { as = "you" retires = 2 }
  call z { as = "us" }
}
"""
    (problem,) = read(text).diagnostics

    assert problem.code == "WF102"
    assert problem.hint is not None
    assert "line 2, column 17" in problem.hint


@pytest.mark.parametrize(
    ("text", "column"),
    [("", 1), ("// nothing\n", 1), ("call x", 1), ("42", 1), ("{", 1), ("meta { }", 1)],
)
def test_what_is_no_workflow_is_one_error(text: str, column: int) -> None:
    (problem,) = read(text).diagnostics

    assert (problem.code, problem.expected) == ("WF201", ("workflow",))
    assert problem.span.column == column


def test_a_misspelt_workflow_is_read_on() -> None:
    assert places("workfow w { cal x }") == [("WF201", 1, 1), ("WF204", 1, 13)]


def test_a_value_on_the_next_line_may_be_a_keyword() -> None:
    """`gate` is a legal value, but `gate human_review { }` on a new line is a step."""
    assert codes("call x { as =\n gate\n retries = 2 }") == []
    assert codes("call workflow x { as =\n gate\n inputs { } }") == []
    assert codes("call x { with = [\n gate\n script ] }") == []
    assert codes("inputs { a default =\n gate\n script }") == []
    assert codes("call x { as =\n } gate human_review { }") == ["WF201"]
    assert codes("if a.b { output =\n call x }") == ["WF301", "WF201"]


def test_warnings_alone_never_stop_the_reading() -> None:
    """Beyond the limit they are left out, and the workflow is still accepted."""
    text = wrap("call x { a = 1 } " * 500)
    result = read(text)

    assert result.definition is not None
    assert len(result.diagnostics) == 101


def test_warnings_about_inputs_are_bounded_too() -> None:
    found = codes(f"inputs {{ {'a ' * 500} }}")

    assert found == ["WF329"] * 100 + ["WF409"]


def test_lexical_and_grammatical_errors_come_together() -> None:
    assert places(wrap("call x { retries = $2 } foo")) == [("WF101", 1, 33), ("WF204", 1, 38)]
