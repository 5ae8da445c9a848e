"""What reading, checking and formatting a text costs grows with its length and nothing else.

Counted are calls, of Python's functions and of built-in ones, which are the same on every machine.
`dev.py fuzz dsl` looks at processor time; texts that it found are named after their seeds.
"""

from __future__ import annotations

import cProfile
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.dsl.format import format_text
from runkon_server.dsl.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE: Final = 64 * 1024
CALLS_PER_CHARACTER: Final = 12
SEARCHES: Final = 10
WORDS: Final = " ".join(f"word{number}" for number in range(999))
UNKNOWN: Final = "".join(f"{{{{ward{number}}}}}" for number in range(5_000))


def repeated(unit: str, before: str = "", after: str = "") -> str:
    """A workflow of 64 KiB that contains the unit again and again."""
    times = (SIZE - len(before) - len(after)) // len(unit)
    return f"workflow w {{ {before}{unit * times}{after} }}"


TEXTS: Final = {
    "lists of 999 words": repeated(f"call x {{ with = [{WORDS}] }}\n"),
    "blocks of 999 options": repeated(f"call x {{ {'a=b ' * 999} }}\n"),
    "empty blocks": repeated("meta{}"),
    "comments": repeated("//\n"),
    "one input with 7,000 modifiers": repeated("required ", "inputs { a ", "}"),
    "blocks in blocks": repeated("do{" * 24 + "}" * 24),
    "commas": repeated(","),
    "unknown steps that resemble one": repeated("paralel{} "),
    "unknown options that resemble one": repeated("script s{rum=1 rnu=2}"),
    "misspelt conditions": repeated("if stpe.m{} ", "call step "),
    "unknown placeholders, 999 inputs": repeated(
        " ", f'inputs {{ {WORDS} }} script s {{ run = "{UNKNOWN}" }}'
    ),
    "1/117899, misspelt options in a string that is never closed": repeated(
        "while a.b{max_iteration=1}", 'call x { as = "me\n" } ', '"'
    ),
}
WITH_FINDINGS: Final = {
    "1/89549, conditions and an unknown step": repeated(
        f"while a.b{{max_iterations=1}} // {'-' * 60}\n", "foo "
    ),
    "1/136749, blocks that are never closed": repeated("if a.b {"),
    "1/151099, lists that are never closed": repeated("if a.b {call x { with = [}"),
}


def calls_of(do: Callable[[], object], name: str = "") -> int:
    """How many calls something takes; with a name, of built-in functions that have it in theirs."""
    profile = cProfile.Profile()
    profile.runcall(do)
    return sum(
        entry.callcount
        for entry in profile.getstats()
        if not name or (isinstance(entry.code, str) and name in entry.code)
    )


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_work_is_bounded_by_the_length(text: str) -> None:
    bound = CALLS_PER_CHARACTER * SIZE

    assert calls_of(lambda: validate(text, "w.wf").render()) < bound
    assert calls_of(lambda: format_text(text, "w.wf")) < bound


@pytest.mark.parametrize("text", WITH_FINDINGS.values(), ids=WITH_FINDINGS)
def test_findings_do_not_search_the_text_one_by_one(text: str) -> None:
    """A search is one call and looks through all of the text, so searches are counted apart."""
    report = validate(text, "w.wf")

    assert len(report.diagnostics) > 1
    assert calls_of(lambda: validate(text, "w.wf"), "'search' of 're.Pattern'") < SEARCHES


def test_the_texts_are_of_the_size_that_is_meant() -> None:
    for text in (TEXTS | WITH_FINDINGS).values():
        assert SIZE * 0.9 < len(text) < SIZE * 1.1
