"""What an editor can do about a problem by itself.

A diagnostic says what was meant as its hint, "did you mean `retries`?", or lists the words that
may stand in its place; both come from one module, `diagnostics.py`, whose wording this one reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl import codes
from runkon_server.dsl.editing.blocks import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.editing.blocks import Mention
    from runkon_server.dsl.editing.document import Document

_SUGGESTION: Final = re.compile(r"did you mean `(.+)`\?")
_QUOTED_WORD: Final = re.compile(r"`([^`]+)`")
_WRITTEN: Final = re.compile(r'"?([^".\s]+)(?:\.[^"\s]+)?"?')


class Fix(NamedTuple):
    """The text to put in place of the characters from `start` to `end`."""

    title: str
    start: int
    end: int
    text: str
    is_preferred: bool
    """Whether it is the one thing that was surely meant."""


def suggestion(diagnostic: Diagnostic) -> str | None:
    """What a diagnostic says was meant."""
    match = _SUGGESTION.fullmatch(diagnostic.hint or "")
    return None if match is None else match[1]


def fixes(diagnostic: Diagnostic, document: Document) -> tuple[Fix, ...]:
    """What can be done about a diagnostic of this text, the likeliest first."""
    place = _place(diagnostic, document)
    if place is None:
        return ()
    meant = suggestion(diagnostic)
    words = [] if meant is None else [meant.strip("{}")]
    if diagnostic.code == codes.UNKNOWN_WORD.id:
        words += [word for word in diagnostic.expected if word != meant]
    start, end = place
    return tuple(
        Fix(
            f"Replace with `{word}`",
            start,
            end,
            word,
            is_preferred=meant is not None and index == 0,
        )
        for index, word in enumerate(words)
    )


def _place(diagnostic: Diagnostic, document: Document) -> tuple[int, int] | None:
    """The word that is wrong: what the span covers, or one further on that the message names.

    Of a condition it is the first part; quotes around a word stay.
    """
    start, end = diagnostic.span.offset, diagnostic.span.end
    written = _WRITTEN.fullmatch(document.text, start, end)
    if written is not None:
        return written.span(1)
    named = {word.strip("{}") for word in _QUOTED_WORD.findall(diagnostic.message)}
    found = [
        (mention.start, mention.end)
        for mention in _words_of_step(document, start)
        if mention.text in named
    ]
    return found[0] if len(found) == 1 else None


def _words_of_step(document: Document, start: int) -> Iterator[Mention]:
    """What a diagnostic about a whole step can be about: references in its block."""
    block = next((each for each in document.structure.blocks() if each.start == start), None)
    if block is not None:
        for mention in document.structure.of_role(Role.STEP, Role.ENTRY, Role.PLACEHOLDER):
            if block.start <= mention.start < block.end:
                yield mention
