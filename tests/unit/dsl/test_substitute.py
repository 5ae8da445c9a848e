"""Placeholders."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.dsl.substitute import (
    ExpansionTooLargeError,
    Unresolved,
    UnresolvedPlaceholderError,
    placeholders,
    substitute,
)
from support.workflows import short


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{a}}", "1"),
        ("{{ a }}{{\ta\n}}", "11"),
        ("{{inputs.a}}", "1"),
        ("{{item.id}}", "7"),
        ("{{x-y.z}}", "2"),
        ("{{missing}}!", "!"),
        ("{{inputs.missing}}!", "!"),
        ("{{{a}}}", "{1}"),
        ("{{}} {{ }}", "{{}} {{ }}"),
        ("{{a b}} {{1}} {{-a}}", "{{a b}} {{1}} {{-a}}"),
        ("{{a", "{{a"),
        ("{{a}", "{{a}"),
        ("a}}", "a}}"),
        ("{{ {{a}} }}", "{{ 1 }}"),
        ("", ""),
    ],
)
def test_strip(text: str, expected: str) -> None:
    """IMP-34: only names are placeholders; blanks and the `inputs.` prefix are understood."""
    values = {"a": "1", "item.id": "7", "x-y.z": "2"}
    assert substitute(text, values) == expected


@pytest.mark.parametrize(
    "text",
    ["{{ ''.__class__ }}", "{{ a + a }}", "${a}", "{% for x in y %}", "{{ a|upper }}", "{{a()}}"],
)
def test_there_is_no_evaluator(text: str) -> None:
    """The security table's row 34: such text is literal."""
    assert substitute(text, {"a": "1"}) == text


def test_a_value_is_never_searched_again() -> None:
    assert substitute("{{a}}{{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}}{{a}}"


def test_a_flat_name_wins_over_the_prefix() -> None:
    assert substitute("{{inputs.a}}", {"inputs.a": "flat", "a": "plain"}) == "flat"


def test_keep_leaves_the_placeholder_as_written() -> None:
    assert substitute("{{ b }}-{{a}}", {"a": "1"}, unresolved=Unresolved.KEEP) == "{{ b }}-1"


def test_error_names_everything_unresolved_once() -> None:
    with pytest.raises(UnresolvedPlaceholderError, match=r"\{\{b\}\}, \{\{c\}\}") as caught:
        substitute("{{b}}{{a}}{{c}}{{b}}", {"a": "1"}, unresolved=Unresolved.ERROR)

    assert caught.value.names == ("b", "c")


def test_an_empty_value_is_a_value() -> None:
    assert substitute("[{{a}}]", {"a": ""}, unresolved=Unresolved.ERROR) == "[]"


def test_growth_is_bounded() -> None:
    """64 KiB times 10,000: given up long before it is built."""
    with pytest.raises(ExpansionTooLargeError) as caught:
        substitute("{{a}}" * 10_000, {"a": "x" * 65_536})

    assert caught.value.limit_bytes == 1024 * 1024


def test_the_bound_counts_bytes_and_is_inclusive() -> None:
    assert substitute("{{a}}", {"a": "é" * 5}, limit_bytes=10) == "é" * 5
    with pytest.raises(ExpansionTooLargeError):
        substitute("{{a}}x", {"a": "é" * 5}, limit_bytes=10)
    with pytest.raises(ExpansionTooLargeError):
        substitute("x" * 11, {}, limit_bytes=10)


@given(
    st.text(alphabet="{}ab. \n-", max_size=80), st.dictionaries(st.sampled_from("ab"), st.text())
)
def test_substitution_is_the_join_of_its_pieces(text: str, values: dict[str, str]) -> None:
    """Against the definition, written the slow way."""
    pattern = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
    expected = pattern.sub(lambda match: values.get(match[1], ""), text)

    assert substitute(text, values) == expected


@pytest.mark.parametrize(
    "text",
    ["{" * 200_000, "{{a" * 70_000, "{{" + " " * 200_000, "{{a" + "-" * 200_000],
    ids=short,
)
def test_hopeless_texts_take_one_pass(text: str) -> None:
    """Would not end within the test's time limit if the search were quadratic."""
    assert substitute(text, {}, limit_bytes=1_000_000) == text


def test_placeholders_are_found_with_their_places() -> None:
    assert list(placeholders("x{{ a }}{{b.c}}")) == [("a", 1, 8), ("b.c", 8, 15)]
