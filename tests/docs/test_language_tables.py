"""The tables of the language reference say what the parser's tables say."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.cli.language.known import read_known
from runkon_server.dsl import ast as tree
from runkon_server.dsl import limits
from runkon_server.dsl.codes import CODES
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.reserved import ENGINE_VARIABLES
from runkon_server.dsl.snapshot import dump
from runkon_server.dsl.tokens import INPUT_MODIFIERS, KEYWORDS
from support.wf_examples import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition

LANGUAGE: Final = Path(__file__).resolve().parents[2] / "docs/language"
TABLE: Final = re.compile(r"^<!-- (?P<title>[^>]+) -->\n(?P<rows>(?:\|.*\n)*)", re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
NOTHING: Final = "\N{EN DASH}"
CODE: Final = re.compile(r"`([^`]*)`")
FIELD_OF: Final = {
    "as": "as_identity",
    "with": "with_",
    "if": "condition",
    "mode": "approval_mode",
}
"""Option -> field of the tree, where the names differ."""
NODE_OF: Final[dict[str, type]] = {
    "meta": tree.Definition,
    "call": tree.Call,
    "call workflow": tree.CallWorkflow,
    "parallel": tree.Parallel,
    "parallel call": tree.ParallelCall,
    "while": tree.While,
    "do … while": tree.DoWhile,
    "do": tree.Do,
    "script": tree.Script,
    "foreach": tree.ForEach,
    "gate quality_gate": tree.QualityGate,
}
SIZES: Final = {
    "SOURCE_BYTES": f"{limits.SOURCE_BYTES // 1024} KiB",
    "DEPTH": f"{limits.DEPTH}",
    "NODES": f"{limits.NODES:,}",
    "ENTRIES": f"{limits.ENTRIES:,}",
    "NAME_LENGTH": f"{limits.NAME_LENGTH} characters",
    "STRING_BYTES": f"{limits.STRING_BYTES // 1024} KiB",
    "ITERATIONS": f"{limits.ITERATIONS:,}",
    "RETRIES": f"{limits.RETRIES}",
    "STEP_TIMEOUT_MS": f"{limits.STEP_TIMEOUT_MS // 3_600_000} hours",
    "RETRY_DELAY_MS": f"{limits.RETRY_DELAY_MS // 60_000} minutes",
    "GATE_TIMEOUT_MS": f"{limits.GATE_TIMEOUT_MS // 86_400_000} days",
    "MAX_PARALLEL": f"{limits.MAX_PARALLEL}",
    "CALL_DEPTH": f"{limits.CALL_DEPTH}",
    "EXPANDED_BYTES": f"{limits.EXPANDED_BYTES // 1024:,} KiB",
    "U32_MAX": f"{limits.U32_MAX:,}",
    "PROBLEMS": f"{limits.PROBLEMS} each",
}
"""Every limit as the page writes it."""


def tables() -> dict[str, list[list[str]]]:
    """The rows of every marked table, by its mark: cells without the heads."""
    found: dict[str, list[list[str]]] = {}
    for path in sorted(LANGUAGE.glob("*.md")):
        for table in TABLE.finditer(path.read_text(encoding="utf-8")):
            lines = table["rows"].splitlines()[2:]
            assert table["title"] not in found
            found[table["title"]] = [
                [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines
            ]
    return found


def definitions() -> Iterator[Definition]:
    """Every workflow of the reference."""
    for path in sorted(LANGUAGE.glob("*.md")):
        for block in blocks(path):
            if block.language == "wf":
                definition = parse(block.text, f"{path.stem}.wf").definition
                assert definition is not None
                yield definition


def bare(cell: str) -> str:
    """The code in a cell, links taken off."""
    found = CODE.search(cell)
    return "" if found is None else found[1]


def test_every_construct_has_a_table_of_its_options() -> None:
    marks = {title.removeprefix("keys: ") for title in tables() if title.startswith("keys: ")}

    assert marks == KEYS.keys()


@pytest.mark.parametrize("construct", KEYS)
def test_a_table_of_options_says_what_the_parser_says(construct: str) -> None:
    """The options in the parser's order, each with its default, or that it is required."""
    rows = tables()[f"keys: {construct}"]
    said = {bare(cells[0]): cells[2] for cells in rows}
    expected = {
        name: "required" if key.required else NOTHING if key.default is None else f"`{key.default}`"
        for name, key in KEYS[construct].items()
    }

    assert list(said) == list(expected)
    assert said == expected


def test_every_option_and_every_modifier_has_a_section() -> None:
    """Some heading has its name."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in LANGUAGE.glob("*.md"))
    words = {word for heading in HEADING.findall(text) for word in heading.split()}
    options = {key for keys in KEYS.values() for key in keys}

    assert (options | INPUT_MODIFIERS) - words == set()


def test_every_choice_of_an_option_is_in_its_row() -> None:
    """Where the parser's table lists words, the page's does."""
    for construct, keys in KEYS.items():
        rows = {bare(cells[0]): cells[1] for cells in tables()[f"keys: {construct}"]}
        for name, key in keys.items():
            if " | " in key.kind:
                assert CODE.findall(rows[name]) == key.kind.split(" | "), (construct, name)


def test_every_keyword_is_explained() -> None:
    assert {bare(cells[0]) for cells in tables()["keywords"]} == KEYWORDS


def test_every_built_in_variable_is_explained() -> None:
    assert {bare(cells[0]) for cells in tables()["variables"]} == ENGINE_VARIABLES


def test_every_limit_is_told() -> None:
    """A limit that is added, dropped or changed has to be written down."""
    named = {name for name in vars(limits) if name.isupper()}
    told = sorted(cells[1] for cells in tables()["limits"])

    assert named == SIZES.keys()
    assert told == sorted(SIZES.values())


@pytest.mark.parametrize("construct", [each for each in KEYS if KEYS[each]])
def test_every_option_is_used_in_an_example(construct: str) -> None:
    """Some workflow of the reference sets it to something that is not its default.

    The other values of `trigger` are accepted with a warning, so no example has one.
    """
    nodes = [node for definition in definitions() for node in nodes_of(definition, construct)]
    keys = KEYS[construct].keys() - {"trigger"}

    assert [key for key in keys if not any(is_set(node, key) for node in nodes)] == []


def nodes_of(definition: Definition, construct: str) -> Iterator[object]:
    """What a construct has become in a definition."""
    if construct == "meta":
        yield definition
    for node in all_nodes(definition):
        if isinstance(node, tree.Parallel) and construct == "parallel call":
            yield from node.calls
        elif isinstance(node, tree.Gate):
            known = f"gate {node.gate_type}" in KEYS
            if construct == (f"gate {node.gate_type}" if known else "gate"):
                yield node
        elif NODE_OF.get(construct) is type(node):
            yield node


def is_set(node: object, option: str) -> bool:
    """Whether a field is not what it is when nothing is written."""
    names = {each.name: each for each in fields(node)}  # type: ignore[arg-type] # it is a node
    name = next(
        each for each in (FIELD_OF.get(option, option), f"{option}_s", option) if each in names
    )
    value, default = getattr(node, name), names[name].default
    if name == "name" and isinstance(node, tree.Gate | tree.QualityGate):
        return not str(value).startswith(getattr(node, "gate_type", "quality_gate"))
    if name == "condition" and isinstance(node, tree.ParallelCall):
        return value is not None
    return default is MISSING or value != default


def test_the_snapshot_of_the_page_is_the_one_of_its_workflow() -> None:
    """Field by field and in order; and every type of node and its fields are in the tables."""
    found = list(blocks(LANGUAGE / "snapshot.md"))
    (source,) = (block.text for block in found if "snapshot" in block.words)
    (shown,) = (block.text for block in found if block.language == "json")
    definition = parse(source, "nightly.wf").definition
    assert definition is not None

    assert json.dumps(json.loads(dump(definition))) == json.dumps(json.loads(shown))


def test_the_tables_of_the_snapshot_page_name_every_field() -> None:
    """Nodes of all workflows of the reference are written out; each field is on the page."""
    prose = (LANGUAGE / "snapshot.md").read_text(encoding="utf-8")
    told = set(CODE.findall(prose)) | set(re.findall(r"\w+", " ".join(CODE.findall(prose))))
    used: set[str] = set()
    types: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, list):
            for each in value:
                collect(each)
        elif isinstance(value, dict) and "type" in value:
            used.update(value)
            types.add(value["type"])
            collect(value.get("body", []))

    for definition in definitions():
        document = json.loads(dump(definition))
        used.update(document)
        collect(document["body"] + document["always"])

    assert used - told == set()
    assert types - told == set()


def test_the_diagnostic_on_the_page_about_checking_is_shown_as_in_the_index() -> None:
    """One message, told twice in the same words."""
    (shown,) = (b.text for b in blocks(LANGUAGE / "checking.md") if b.language == "text")
    index = LANGUAGE.parent / "diagnostics/WF301.md"

    assert shown in index.read_text(encoding="utf-8")


def test_the_file_for_known_is_one_that_the_command_reads(tmp_path: Path) -> None:
    """It has every kind of thing that can be told."""
    (shown,) = (b.text for b in blocks(LANGUAGE / "checking.md") if b.language == "toml")
    path = tmp_path / "known.toml"
    path.write_text(shown, encoding="utf-8")
    world = read_known(str(path))
    told = {each.name for each in fields(world) if getattr(world, each.name)}

    assert told == {each.name for each in fields(world)} - {"load", "members", "scripts"}


def test_every_code_is_told_where_it_belongs() -> None:
    """The reference links every page of the index of diagnostics."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in LANGUAGE.glob("*.md"))

    assert [code for code in CODES if f"(../diagnostics/{code}.md)" not in text] == []


def test_every_page_is_in_the_index() -> None:
    index = (LANGUAGE / "README.md").read_text(encoding="utf-8")

    for path in LANGUAGE.glob("*.md"):
        assert path.name == "README.md" or f"]({path.name}" in index
