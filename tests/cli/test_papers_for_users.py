"""What the examples and the documents for users say is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

import runkon_client
from runkon_client import values
from runkon_client.cli.modules import load_actions
from runkon_server.dsl.check import check
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import agent_refs
from runkon_server.dsl.unsupported import refuse_unsupported

ROOT: Final = Path(__file__).resolve().parents[2]
FENCE: Final = re.compile(r"^```(\w+)([\w ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAPERS: Final = ("README.md", "docs/quickstart.md", "docs/language-tour.md")


def blocks(language: str, *papers: str) -> list[tuple[str, str]]:
    """The fenced blocks of a language: what stands behind the language's name, and the text."""
    return [
        (found[2].strip(), found[3])
        for paper in papers
        for found in FENCE.finditer(ROOT.joinpath(paper).read_text(encoding="utf-8"))
        if found[1] == language
    ]


def test_the_example_workflow_is_in_order() -> None:
    """It parses without a warning, and this version runs all of it."""
    path = ROOT / "examples/workflows/ticket-to-pr.wf"
    read = parse(path.read_text(encoding="utf-8"), str(path))

    assert read.definition is not None, read.render()
    assert read.diagnostics == ()
    assert check(read.definition) == ()
    assert refuse_unsupported(read.definition) == ()


def test_the_example_worker_has_every_action_of_its_workflow() -> None:
    """Also those that are called only when something goes wrong."""
    path = ROOT / "examples/workflows/ticket-to-pr.wf"
    definition = parse(path.read_text(encoding="utf-8"), str(path)).definition
    assert definition is not None
    called = {agent.value for agent in agent_refs(definition)}
    offered = set(load_actions(str(ROOT / "examples/workers/development_cycle.py")).names)

    assert called == offered


@pytest.mark.parametrize(("tag", "text"), blocks("wf", *PAPERS))
def test_every_workflow_in_the_documents_does_what_they_say(tag: str, text: str) -> None:
    """It is accepted without a warning; one marked `refused` is read and not run yet."""
    read = parse(text, "tour.wf")

    assert read.definition is not None, read.render()
    assert read.diagnostics == ()
    assert check(read.definition) == ()
    assert bool(refuse_unsupported(read.definition)) is (tag == "refused")


@pytest.mark.parametrize(("tag", "text"), blocks("python", *PAPERS))
def test_every_program_in_the_documents_uses_names_that_exist(tag: str, text: str) -> None:
    """It compiles, and what it imports from the client is there."""
    tree = ast.parse(text)
    compile(tree, "README", "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            home = {"runkon_client": runkon_client, "runkon_client.values": values}
            assert tag == ""
            missing = [
                alias.name
                for alias in node.names
                if node.module in home and not hasattr(home[node.module], alias.name)
            ]
            assert not missing


def test_the_readme_shows_the_three_calls_in_twenty_lines() -> None:
    """Whoever reads one thing reads this."""
    ((_, text),) = blocks("python", "README.md")
    lines = [line for line in text.splitlines() if line.strip()]

    assert len(lines) <= 20
    assert all(call in text for call in ("start_run(", ".events()", ".approve("))


def test_the_tour_shows_every_construct() -> None:
    """Each word of the grammar that begins a node is in one of its workflows."""
    text = "\n".join(text for _, text in blocks("wf", "docs/language-tour.md"))
    words = {
        "call", "call workflow", "if", "unless", "while", "do", "parallel", "gate", "always",
        "script", "foreach",
    }  # fmt: skip

    assert {word for word in words if re.search(rf"^ +\}}? ?{word} ", text, re.MULTILINE)} == words
