"""The canonical layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings

from runkon_server.dsl.format import format_text
from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.problems import Problems
from runkon_server.dsl.source import Source
from support.workflows import read, sources, wrap

GOLDEN = Path(__file__).parent / "golden"
MESSY = (GOLDEN / "messy.source").read_text(encoding="utf-8")


def formatted(text: str) -> str:
    result = format_text(text, "w.wf")
    assert result.text is not None, read(text).render()
    return result.text


def formatted_contents(text: str) -> str:
    """The layout of the contents of a workflow, without the workflow around it."""
    lines = formatted(wrap(text)).splitlines()
    return "\n".join(line.removeprefix("  ") for line in lines[1:-1])


def words(text: str) -> list[tuple[str, str]]:
    """The tokens of a text but for commas."""
    source = Source(text, "w.wf")
    return [
        (token.kind, token.text)
        for token in tokenise(source, Problems(source))
        if token.kind != ","
    ]


def comments(text: str) -> Counter[str]:
    source = Source(text, "w.wf")
    return Counter(comment.text for comment in tokenise(source, Problems(source)).comments)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
@example(MESSY)
def test_formatting_keeps_the_meaning_the_words_and_the_comments(text: str) -> None:
    """The three laws of the formatter, on any valid file in any layout."""
    result = formatted(text)

    assert read(result).definition == read(text).definition
    assert words(result) == words(text)
    assert comments(result) == comments(text)
    assert formatted(result) == result


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_the_layout_does_not_depend_on_the_layout_before(text: str) -> None:
    """Without comments and line breaks, all spellings of one token list look alike."""
    bare = " ".join(word for _, word in words(text) if "\n" not in word)
    spread = bare.replace(" ", "\n")
    if read(bare).definition is None or words(bare) != words(spread):
        return

    assert formatted(bare) == formatted(spread)


def test_the_messy_file_is_laid_out_as_recorded() -> None:
    recorded = (GOLDEN / "messy.formatted").read_text(encoding="utf-8")

    assert formatted(MESSY) == recorded


@pytest.mark.parametrize("name", ["nightly", "everything"])
def test_files_in_canonical_layout_stay_as_they_are(name: str) -> None:
    text = (GOLDEN / f"{name}.wf").read_text(encoding="utf-8")
    once = formatted(text)

    assert formatted(once) == once
    assert len(once.splitlines()) >= len(text.splitlines()) - 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call x{}", "call x {}"),
        ("call x{retries=1}", "call x { retries = 1 }"),
        ("call x{retries=1 as=me}", "call x { retries = 1 as = me }"),
        (
            "call x{retries=1 as=me output=y}",
            "call x {\n  retries = 1\n  as = me\n  output = y\n}",
        ),
        ("if a . b{call x}", "if a.b {\n  call x\n}"),
        ("call x{with=[a b,c]}", "call x { with = [a, b, c] }"),
        ("call x { // why\n}", "call x {  // why\n}"),
        ("call x // why\n", "call x  // why"),
        ("call x\n\n\n\ncall y", "call x\n\ncall y"),
        ("call x\ncall y", "call x\ncall y"),
        ("\n\ncall x\n\n", "call x"),
        ("call x\r\n// c\r\ncall y", "call x\n// c\ncall y"),
        ("do{}\nwhile a.b{max_iterations=1}", "do {}\nwhile a.b {\n  max_iterations = 1\n}"),
        ("do{max_iterations=1}while a.b", "do {\n  max_iterations = 1\n} while a.b"),
        ("script s{run=a env={A=1,B=2}}", "script s {\n  run = a\n  env = { A = 1 B = 2 }\n}"),
        ("inputs{a b required}", "inputs {\n  a\n  b required\n}"),
        ('call x{as="a\n b"}', 'call x {\n  as = "a\n b"\n}'),
    ],
)  # fmt: skip
def test_layout(text: str, expected: str) -> None:
    assert formatted_contents(text) == expected


def test_a_long_list_is_spread() -> None:
    items = [f"element-{number:02}" for number in range(12)]
    lines = formatted_contents(f"call x {{ with = [{' '.join(items)}] }}").splitlines()

    assert lines[1:3] == ["  with = [", "    element-00,"]
    assert lines[-3:] == ["    element-11,", "  ]", "}"]


def test_a_line_may_be_100_wide() -> None:
    def text(width: int) -> str:
        prefix = "  call x { as = }"
        return f"call x {{ as = {'y' * (width - len(prefix) - 1)} }}"

    assert len(formatted(wrap(text(100))).splitlines()[1]) == 100
    assert formatted(wrap(text(101))).splitlines()[1] == "  call x {"


def test_a_byte_order_mark_is_dropped() -> None:
    assert formatted("\ufeffworkflow w {}") == "workflow w {}\n"


def test_a_file_with_errors_is_not_touched() -> None:
    result = format_text("workflow w { cal x }", "w.wf")

    assert result.text is None
    assert [each.code for each in result.diagnostics] == ["WF204"]


def test_warnings_do_not_keep_a_file_from_being_formatted() -> None:
    result = format_text("workflow w { call x { retires = 1 } }", "w.wf")

    assert result.text is not None
    assert [each.code for each in result.diagnostics] == ["WF301"]
