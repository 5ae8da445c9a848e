"""The example workflows run to the outcomes that their page tells, their worlds as they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import pytest

from runkon_server.dsl.ast import Always, Node
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import all_nodes, workflow_refs
from support.wf_examples import outcome_in
from support.wf_plays import Stage, play

if TYPE_CHECKING:
    from e2e.conftest import Place

    from runkon_server.dsl.ast import Definition

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples/workflows"
TEXTS: Final = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.wf")}
PAGE: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
CHILDREN: Final = frozenset({"small-change", "migrate-table", "rollback", "triage-run"})
"""Workflows that others start; they are played with those."""
SHOWN: Final = "ticket-to-pr"
"""The one of the demo, which plays it in a real repository (`test_demo`)."""
SECTION: Final = re.compile(
    r"^## \[([\w-]+)\.wf\][^\n]*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
"""A section of the page: the name of a workflow, and what is said of it."""


def definition_of(name: str) -> Definition:
    result = parse(TEXTS[name], f"{name}.wf")
    assert result.definition is not None
    return result.definition


def beside(folder: str) -> dict[str, str]:
    """Schemas or snippets by name."""
    paths = (FOLDER / folder).iterdir()
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def below(name: str) -> list[str]:
    """Every workflow that a run of this one may start."""
    todo, found = [name], []
    while todo:
        for ref in workflow_refs(definition_of(todo.pop())):
            if ref not in found:
                found.append(ref)
                todo.append(ref)
    return found


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - CHILDREN - {SHOWN}))
async def test_an_example_runs_as_its_page_says(place: Place, tmp_path: Path, name: str) -> None:
    sections = dict(SECTION.findall(PAGE))
    said = outcome_in(" ".join(sections[name].split()))
    assert said is not None
    stage = Stage(
        address=place.address,
        namespace=place.namespace,
        folder=tmp_path,
        schemas=beside("schemas"),
        snippets=beside("snippets"),
    )
    found = await play(stage, TEXTS[name], stored=[TEXTS[each] for each in below(name)])
    assert (found.run.status.value, found.run.error) == (said.status, said.error)
    assert found.steps == said.steps


def test_the_page_tells_of_every_workflow_once() -> None:
    assert sorted(name for name, _ in SECTION.findall(PAGE)) == sorted(TEXTS)


def test_together_they_use_the_whole_language() -> None:
    """Every kind of node, and every option by its name.

    But `always` inside another block, which promises what it does not keep (WF327).
    """
    kinds = {type(node) for name in TEXTS for node in all_nodes(definition_of(name))}
    assert kinds == set(get_args(Node)) - {Always}
    assert any(definition_of(name).always for name in TEXTS)
    texts = "\n".join(TEXTS.values())
    options = {key for keys in KEYS.values() for key in keys}
    assert {key for key in options if not re.search(rf"\b{key} (=|\{{)", texts)} == set()
