"""Whatever is being typed, an editor's questions have answers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runkon_server.dsl.editing.blocks import FILE
from runkon_server.dsl.editing.completing import complete
from runkon_server.dsl.editing.defining import define
from runkon_server.dsl.editing.document import Document
from runkon_server.dsl.editing.fixing import fixes
from runkon_server.dsl.editing.hovering import hover
from runkon_server.dsl.editing.laying_out import lay_out
from runkon_server.dsl.editing.outlining import outline
from support.editing import company
from support.workflows import short, sources

if TYPE_CHECKING:
    from runkon_server.dsl.editing.collection import Collection

ROOT: Final = Path(__file__).resolve().parents[3]
REAL: Final = tuple(
    path.read_text(encoding="utf-8")
    for path in (
        ROOT / "tests/unit/dsl/golden/everything.wf",
        ROOT / "examples/workflows/ticket-to-pr.wf",
    )
)
SCRAPS: Final = ("{", "}", '"', "=", ".", "\n", "//", "[", "{{", "}}", "call ", "do {", "\\", "🚀")


def ask_everything(document: Document, offsets: range) -> Collection:
    """Every question at every one of the offsets, and those about the whole."""
    collection = company(document, *REAL)
    for offset in offsets:
        for item in complete(document, offset, collection):
            assert 0 <= item.start <= item.end == offset
        found = hover(document, offset, collection)
        assert found is None or found.start <= offset <= found.end
        define(document, offset, collection)
    outline(document)
    lay_out(document)
    for diagnostic in collection.diagnose(document.label):
        for fix in fixes(diagnostic, document):
            assert 0 <= fix.start <= fix.end <= len(document.text)
    return collection


@settings(max_examples=150)
@given(data=st.data())
def test_every_prefix_of_a_workflow_can_be_asked_about(data: st.DataObject) -> None:
    """Real and generated ones, cut anywhere; asked around the cut and at the start."""
    text = data.draw(st.one_of(st.sampled_from(REAL), sources()))
    cut = data.draw(st.integers(0, len(text)))

    ask_everything(Document(text[:cut], "w.wf"), range(max(0, cut - 8), cut + 1))


@settings(max_examples=150)
@given(data=st.data())
def test_every_mutation_of_a_workflow_can_be_asked_about(data: st.DataObject) -> None:
    """Pieces cut out, doubled and put in; asked around each change."""
    text = data.draw(st.one_of(st.sampled_from(REAL), sources()))
    changed = 0
    for _ in range(data.draw(st.integers(1, 4))):
        changed = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(changed, min(len(text), changed + 40)))
        instead = data.draw(st.one_of(st.sampled_from(SCRAPS), st.just(text[changed:end] * 2)))
        text = text[:changed] + instead + text[end:]

    offsets = range(max(0, changed - 5), min(len(text), changed + 5) + 1)
    ask_everything(Document(text, "w.wf"), offsets)


@pytest.mark.parametrize("text", REAL, ids=short)
def test_every_position_of_a_real_workflow_can_be_asked_about(text: str) -> None:
    """Each of its characters, and every mention is the word it says."""
    document = Document(text, "w.wf")

    ask_everything(document, range(0, len(text) + 1, 3))

    assert document.parsed.definition is not None
    for mention in document.structure.mentions:
        assert document.text[mention.start : mention.end] == mention.text
    for before, after in pairwise(document.structure.mentions):
        assert before.end <= after.start


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeff",
        "\x00",
        '"',
        "\\",
        "workflow w { call x { as = \ud800 } }",
        "{" * 100_000,
        "}" * 1_000,
        "workflow w {" + "if a.b {" * 20_000,
        "workflow w { call x { with = [" + "a " * 10_000,
        "#" * 500,
        "x" * 300_000,
    ],
    ids=short,
)
def test_texts_that_are_no_workflow_can_be_asked_about(text: str) -> None:
    """No text, no characters that can be stored, nesting without end, too much of it."""
    ask_everything(Document(text, "w.wf"), range(0, len(text) + 1, max(1, len(text) // 3)))


@settings(max_examples=150)
@given(text=sources())
def test_every_block_of_a_right_workflow_is_found_where_it_is(text: str) -> None:
    """The tolerant reading agrees with the braces: each block ends at its own.

    In the canonical layout: a keyword that starts a line counts as a step, though it may be a name.
    """
    laid_out = lay_out(Document(text, "w.wf"))
    assert laid_out is not None
    document = Document(laid_out, "w.wf")

    for block in document.structure.blocks():
        if block.construct != FILE and block.opened_at is not None:
            assert block.ends_at is not None
            assert laid_out[block.opened_at - 1] == "{"
            assert laid_out[block.ends_at] == "}"
            assert block.parent is not None
            assert block.parent.encloses(block.start)
