"""Text to tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.problems import Problems, StopReading
from runkon_server.dsl.source import Source
from runkon_server.dsl.strings import SECOND_EDITION, quote, unquote
from runkon_server.dsl.tokens import EOF, IDENT, INT, STRING, Tokens
from support.workflows import accepted, read

# Unicode White_Space, by the specification's list.
SPACES = [
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
    0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
]  # fmt: skip


def tokens_of(text: str) -> tuple[Tokens, Problems]:
    source = Source(text, "w.wf")
    problems = Problems(source)
    return tokenise(source, problems), problems


def kinds(text: str) -> list[str]:
    tokens, problems = tokens_of(text)
    assert problems.in_order() == ()
    return tokens.kinds[:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-b--c_ x-", [IDENT, IDENT]),
        ("2h 3x 0.5", [INT, IDENT, INT, IDENT, INT, ".", INT]),
        ("call call-me Call", ["call", IDENT, IDENT]),
        ('"""x"""', [STRING, STRING, STRING]),
        ("{}[],=.", ["{", "}", "[", "]", ",", "=", "."]),
        ('"//" // note', [STRING]),
        ("a//b\nc", [IDENT, IDENT]),
        ("007 4294967295", [INT, INT]),
        ("", []),
        ("  \n", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize("code_point", SPACES)
def test_unicode_white_space_separates(code_point: int) -> None:
    assert kinds(f"a{chr(code_point)}b") == [IDENT, IDENT]


@pytest.mark.parametrize("code_point", [0x1C, 0x1D, 0x1E, 0x1F, 0x200B, 0xFEFF])
def test_other_blanks_are_unexpected(code_point: int) -> None:
    """Python calls the first four white space, and the mark is skipped only at the start."""
    _, problems = tokens_of(f"a {chr(code_point)}b")

    assert [each.code for each in problems.in_order()] == ["WF101"]


@given(st.text(max_size=200))
def test_tokens_lie_in_order_inside_the_text(text: str) -> None:
    """Whatever the text, tokens do not overlap, and the last one is the end of the file."""
    try:
        tokens, _ = tokens_of(text)
    except StopReading:
        return

    position = 0
    for token in tokens:
        assert position <= token.span.offset <= token.span.end <= len(text)
        position = token.span.end
    assert tokens.kinds[-1] == EOF
    assert tokens.kinds.count(EOF) == 1


def test_comments_stay_with_the_token_behind_them() -> None:
    """The formatter puts them back."""
    tokens, _ = tokens_of("// one\na // two\r\n// three\n")
    first, last = tokens

    assert [comment.text for comment in first.comments] == ["// one"]
    assert [comment.text for comment in last.comments] == ["// two", "// three"]


def test_a_token_knows_its_place() -> None:
    tokens, _ = tokens_of("a\n  bc")
    token = list(tokens)[1]

    assert (token.span.line, token.span.column, token.span.offset, token.span.end) == (2, 3, 4, 6)


@pytest.mark.parametrize("text", ["a\x00", "// \ud800", '"\udfff"'])
def test_what_the_database_cannot_keep_is_refused(text: str) -> None:
    """Also inside comments: the source is stored whole."""
    assert [each.code for each in read(text).diagnostics] == ["WF103"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_text_reads_as_itself(text: str) -> None:
    source = Source("", "w.wf")
    literal = quote(text)

    assert unquote(literal, 0, Problems(source), edition=1) == text
    assert unquote(literal, 0, Problems(source), edition=2) == text


def test_known_escapes() -> None:
    assert accepted(r'meta { title = "a\n\t\"\\b" }').title == 'a\n\t"\\b'


def test_raw_line_breaks_belong_to_the_string() -> None:
    assert accepted('meta { title = "a\r\nb" }').title == "a\r\nb"


def test_the_second_edition_knows_more_escapes() -> None:
    r"""IMP-5: `\r` and `\uXXXX` mean something only where the caller asks for it."""
    problems = Problems(Source("", "w.wf"))

    assert unquote(r'"\r\u00e9\q"', 0, problems, edition=SECOND_EDITION) == "\réq"
    assert [each.code for each in problems.in_order()] == ["WF104"]


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud83d"])
def test_an_escape_cannot_smuggle_in_what_cannot_be_kept(escape: str) -> None:
    problems = Problems(Source("", "w.wf"))
    unquote(f'"{escape}"', 0, problems, edition=SECOND_EDITION)

    assert [each.code for each in problems.in_order()] == ["WF103"]


def test_the_hint_for_an_escape_of_the_second_edition_says_so() -> None:
    (problem,) = read(r'workflow w { meta { title = "\u0041" } }').diagnostics

    assert problem.hint is not None
    assert "edition 2" in problem.hint
