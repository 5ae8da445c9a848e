"""The schemas of the language reference can be used, and its examples report what they ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from runkon_server.core.outputs_check import first_problem
from runkon_server.core.outputs_derived import holds, markers_of
from runkon_server.core.outputs_schema import schema_of
from runkon_server.dsl.ast import Call, Do, Parallel
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import agent_key, schema_refs, snippet_refs
from support.wf_examples import blocks, cues_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.core.outputs_schema import Schema
    from runkon_server.dsl.ast import Definition, Node

LANGUAGE: Final = Path(__file__).resolve().parents[2] / "docs/language"
RULE: Final = re.compile(r"`([^`\n]*(?:==|\.length)[^`\n]*)`")


def schemas() -> dict[str, Schema]:
    """The schemas of the page about results, by name."""
    return {
        word.removeprefix("schema="): schema_of(
            word.removeprefix("schema="), yaml.safe_load(each.text)
        )
        for each in blocks(LANGUAGE / "results.md")
        for word in each.words
        if each.language == "yaml"
    }


def snippets() -> set[str]:
    return {
        word.removeprefix("snippet=")
        for each in blocks(LANGUAGE / "results.md")
        for word in each.words
        if word.startswith("snippet=")
    }


def examples() -> Iterator[tuple[Definition, str]]:
    """Every workflow of the reference with its text."""
    for path in sorted(LANGUAGE.glob("*.md")):
        for each in blocks(path):
            if each.language == "wf":
                definition = parse(each.text, f"{path.name}:{each.line}").definition
                assert definition is not None
                yield definition, each.text


def asked(nodes: tuple[Node, ...], outer: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Action, step key and schema of every call that has to match one; the innermost counts."""
    for node in nodes:
        match node:
            case Call() if node.output or outer:
                yield node.agent.value, agent_key(node.agent), node.output or outer or ""
            case Do():
                yield from asked(node.body, node.output or outer)
            case Parallel():
                for call in node.calls:
                    if name := call.output or node.output or outer:
                        yield call.agent.value, agent_key(call.agent), name
            case _:
                pass


def test_every_schema_and_snippet_of_the_examples_is_shown() -> None:
    """And none is shown that no example uses."""
    definitions = [definition for definition, _ in examples()]

    assert {name for each in definitions for name in schema_refs(each)} == schemas().keys()
    assert {name for each in definitions for name in snippet_refs(each)} == snippets()


def test_the_examples_report_what_their_schemas_ask_for() -> None:
    """And the markers that follow are those for which the runs go where the page says."""
    seen: dict[str, tuple[str, ...]] = {}
    for definition, text in examples():
        for action, key, name in asked(definition.body):
            (deed,) = cues_of(text).deeds.get(action, (None,))
            if deed is None:
                continue
            problem = first_problem(schemas()[name], deed.output)
            assert problem is None, f"{definition.source_path}: {key}: {problem}"
            assert isinstance(deed.output, dict)
            seen[f"{definition.name}/{key}"] = markers_of(schemas()[name], deed.output)

    assert seen["uniform/review-code"] == ()
    assert seen["uniform/review-tests"] == ("has_findings",)
    assert seen["reviewed/review"] == ("blocked", "has_findings")
    assert len(seen) > 6


def test_the_conditions_that_the_page_shows_are_understood() -> None:
    """Each expression shown in the prose can hold; one of another form never does."""
    prose = (LANGUAGE / "results.md").read_text(encoding="utf-8")
    rules = RULE.findall(prose)
    output = {"approved": False, "findings": [{"severity": "high"}]}

    assert set(rules) == {
        "approved == false", "findings.length", "findings[severity == high].length", "=="
    }  # fmt: skip
    assert holds("approved == false", output)
    assert holds("findings.length == 1", output)
    assert holds("findings[severity == high].length > 0", output)
    assert not holds("findings.length >= 1", output)


@pytest.mark.parametrize("output", [{}, {"findings": [{"severity": "mild"}]}])
def test_a_report_that_does_not_match_is_found(output: object) -> None:
    """The check above can fail."""
    assert first_problem(schemas()["review-report"], output) is not None
