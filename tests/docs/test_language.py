"""The language reference keeps its word: its workflows are in order, and its runs end as it says.

Every `wf` block of docs/language is parsed, checked and compared with its canonical layout; every
one marked `run` is played on a server, its world acting as the comments of the text say
(`support.wf_examples`), to the outcome that the page states below it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.dsl.check import World, check
from runkon_server.dsl.format import format_text
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import workflow_refs
from runkon_server.dsl.unsupported import refuse_unsupported
from support.live_api import live_api
from support.postgres import cloned
from support.wf_examples import blocks, outcome_of
from support.wf_plays import Stage, play

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_server.dsl.ast import Definition
    from support.live_api import LiveApi
    from support.wf_examples import Block

LANGUAGE: Final = Path(__file__).resolve().parents[2] / "docs/language"
PAGES: Final = sorted(path.name for path in LANGUAGE.glob("*.md"))
EXAMPLES: Final = {
    page: [block for block in blocks(LANGUAGE / page) if block.language == "wf"] for page in PAGES
}
COUNTS: Final = {
    "README.md": (1, 1),
    "call-workflow.md": (6, 6),
    "call.md": (13, 13),
    "conditions.md": (4, 4),
    "do.md": (3, 3),
    "foreach.md": (15, 11),
    "gates.md": (20, 20),
    "loops.md": (5, 5),
    "parallel.md": (7, 7),
    "placeholders.md": (4, 3),
    "results.md": (5, 5),
    "script.md": (4, 4),
    "snapshot.md": (1, 0),
    "text.md": (15, 15),
    "workflow.md": (10, 10),
}
"""Page -> its workflows, and how many of them are played."""

_numbers = itertools.count(1)


def every(*, runnable: bool) -> list[object]:
    """The examples of all pages as cases, or only those to be played."""
    return [
        pytest.param(page, block, id=f"{page}:{block.line}")
        for page, found in EXAMPLES.items()
        for block in found
        if not runnable or "run" in block.words
    ]


def definition_of(text: str) -> Definition:
    read = parse(text, "example.wf")
    assert read.definition is not None, read.render()
    return read.definition


def workflows_of(page: str) -> dict[str, str]:
    """The texts of a page that can be read, by the name of the workflow."""
    read = [(parse(block.text, "example.wf"), block.text) for block in EXAMPLES[page]]
    return {result.definition.name: text for result, text in read if result.definition is not None}


def below(name: str, texts: dict[str, str]) -> list[str]:
    """The workflows that one calls, directly or not, those called first."""
    found: dict[str, None] = {}
    for called in workflow_refs(definition_of(texts[name])):
        found |= dict.fromkeys([*below(called, texts), called])
    return list(found)


def beside(kind: str) -> dict[str, str]:
    """The schemas or snippets that the reference shows, by name."""
    found = {}
    for block in blocks(LANGUAGE / "results.md"):
        for word in block.words:
            if word.startswith(f"{kind}="):
                found[word.removeprefix(f"{kind}=")] = block.text
    return found


def refused_in(text: str) -> list[str]:
    """What the server does not run yet of a workflow, in its own words."""
    return [each.message for each in refuse_unsupported(definition_of(text))]


def test_no_page_has_lost_its_examples() -> None:
    """A page, an example or a mark that vanishes is noticed."""
    counted = {
        page: (len(found), sum("run" in block.words for block in found))
        for page, found in EXAMPLES.items()
        if found
    }

    assert counted == COUNTS


@pytest.mark.parametrize(("page", "block"), every(runnable=False))
def test_an_example_is_in_order_and_in_the_canonical_layout(page: str, block: Block) -> None:
    """No error, no warning, and `runkon workflows format` would leave it alone."""
    texts = workflows_of(page)
    world = World(load=lambda name: definition_of(texts[name]) if name in texts else "not there")
    read = parse(block.text, "example.wf")

    assert read.definition is not None, read.render()
    assert read.diagnostics == ()
    assert check(read.definition, world) == ()
    assert format_text(block.text, "example.wf").text == block.text


@pytest.fixture(scope="module")
async def served(postgres_server: str, template_database: str) -> AsyncIterator[LiveApi]:
    """A server in this process for all examples; each gets a namespace of its own.

    It must not outlive them: failpoints that later tests arm would strike it as well.
    """
    with cloned(postgres_server, template_database) as database:
        async with live_api(database) as api:
            yield api


@pytest.mark.parametrize(("page", "block"), every(runnable=True))
async def test_an_example_runs_as_its_page_says(
    page: str, block: Block, served: LiveApi, tmp_path: Path
) -> None:
    """Played to its end: status, rows and error. What the server refuses yet is only checked."""
    texts = workflows_of(page)
    definition = definition_of(block.text)
    called = [texts[name] for name in below(definition.name, texts)]
    said = outcome_of(block)
    assert said is not None, "no outcome is stated below the block"
    refused = [each for text in (block.text, *called) for each in refused_in(text)]
    if refused:
        pytest.skip(f"checked, not played: {refused[0]}")
    stage = Stage(
        address=served.address,
        namespace=f"example-{next(_numbers)}",
        folder=tmp_path,
        schemas=beside("schema"),
        snippets=beside("snippet"),
    )
    found = await play(stage, block.text, stored=called, dry_run="dry" in block.words)

    assert found.run.status.value == said.status, found.run.error
    assert said.error in found.run.error
    assert said.steps in ((), found.steps)
