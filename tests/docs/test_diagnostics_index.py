"""The index of diagnostics: a page for every code, whose example gives it and whose fix does not.

A page has a block marked `wrong` (of `wf`, a Python expression for texts too long to print, or the
JSON of a snapshot), one marked `output` with what `runkon check` says about it, and one marked
`fixed`. Other blocks with `file=` lie beside them; the file `known.toml` is what `runkon check
--known` reads.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runkon_server.cli.language.known import read_known
from runkon_server.cli.language.surroundings import Neighbours, ScriptFolders
from runkon_server.dsl.check import World
from runkon_server.dsl.codes import CODES
from runkon_server.dsl.format import format_text
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshots.explaining import read_snapshot
from runkon_server.dsl.unsupported import refuse_unsupported
from runkon_server.dsl.validate_set import validate_set
from support.wf_examples import blocks

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Pairs
    from runkon_server.dsl.check import Provider
    from runkon_server.dsl.validate import Report
    from support.wf_examples import Block

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs/diagnostics"
ROW: Final = re.compile(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \| (.+) \|$", re.MULTILINE)
NAME: Final = re.compile(r"workflow ([\w-]+)")
KNOWN: Final = "known.toml"
SERVER_KEYS: Final = ("scope_remark", "unusable.")
UNSERVED: Final = "WF601"
"""Beside other findings, this only says that the server is not finished."""


@dataclass(frozen=True, slots=True)
class Remarking:
    """A provider with something to say about a scope that is not given; files cannot tell it."""

    provider: Provider
    remark: str

    @property
    def knows_order(self) -> bool:
        return self.provider.knows_order

    @property
    def filter_example(self) -> str | None:
        return self.provider.filter_example

    def scope_error(self, scope: Pairs | None) -> str | None:
        return self.provider.scope_error(scope)

    def scope_remarks(self, scope: Pairs | None) -> tuple[str, ...]:
        return () if scope else (self.remark,)

    def filter_error(self, filter_: Pairs) -> str | None:
        return self.provider.filter_error(filter_)


class Page:
    """The page of one code."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.text = (FOLDER / f"{code}.md").read_text(encoding="utf-8")
        self.blocks = list(blocks(FOLDER / f"{code}.md"))

    def marked(self, mark: str) -> Block:
        (found,) = (block for block in self.blocks if mark in block.words)
        return found

    @property
    def also(self) -> set[str]:
        """Codes that the example cannot but give as well."""
        words = self.marked("wrong").words
        return {word.removeprefix("also=") for word in words if word.startswith("also=")}

    def judged(self, mark: str) -> Report:
        """What is said about the block with this mark; the working directory is used up."""
        block = self.marked(mark)
        text = evaluated(block.text) if block.language == "python" else block.text
        name = NAME.search(text)
        label = block.file or f"{name[1] if name else 'example'}.wf"
        beside = {
            each.file: each
            for each in self.blocks
            if each.file is not None and not {"wrong", "fixed"} & set(each.words)
        }
        files = {file: each.text for file, each in beside.items() if each.language == "wf"}
        for file, each in beside.items():
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text(each.text, encoding="utf-8")
            Path(file).chmod(0o755 if "executable" in each.words else 0o644)
        read = {each: parse(content, each) for each, content in files.items()}
        read[label] = (read_snapshot if block.language == "json" else parse)(text, label)
        return validate_set(read, world(is_set=bool(files)))[label]


def evaluated(expression: str) -> str:
    tree = ast.parse(expression.strip(), mode="eval")
    return str(eval(compile(tree, "a page", "eval")))  # noqa: S307 - our own page


def world(*, is_set: bool) -> World:
    """What the working directory tells, as `runkon check --known known.toml` would see it."""
    load = Neighbours([], is_whole=True) if is_set else None
    scripts = ScriptFolders(["."])
    if not Path(KNOWN).exists():
        return World(load=load, scripts=scripts)
    told = without_what_only_a_server_tells()
    known = read_known(KNOWN)
    providers, schemas = dict(known.providers or {}), dict(known.schemas or {})
    for name, each in told.get("providers", {}).items():
        if "scope_remark" in each:
            providers[name] = Remarking(providers[name], each["scope_remark"])
    return replace(
        known,
        load=load,
        scripts=scripts,
        providers=None if known.providers is None else providers,
        schemas=None if known.schemas is None else schemas | told.get("unusable", {}),
    )


def without_what_only_a_server_tells() -> dict[str, Any]:
    """Take what the command line cannot read out of the file; gives all that was in it.

    Only a server hears a provider's remarks and knows what is wrong with a schema.
    """
    text = Path(KNOWN).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(SERVER_KEYS)]
    Path(KNOWN).write_text("\n".join(lines), encoding="utf-8")
    return tomllib.loads(text)


def refuses_anything() -> bool:
    """Whether there is a workflow in the language's reference that this server does not run."""
    pages = (FOLDER.parent / "language").glob("*.md")
    texts = [block.text for page in pages for block in blocks(page) if block.language == "wf"]
    read = [parse(text, "example.wf").definition for text in texts]
    return any(refuse_unsupported(each) for each in read if each is not None)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}

    assert pages == CODES.keys()


def test_the_index_lists_every_code_in_order() -> None:
    """With its severity and its title."""
    rows = ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))

    assert rows == [(each.id, each.id, str(each.severity), each.title) for each in CODES.values()]


@pytest.mark.parametrize("code", CODES)
def test_a_page_begins_with_title_severity_and_reason(code: str) -> None:
    """As the table of codes has them."""
    each = CODES[code]
    head, _, kind = Page(code).text.split("\n")[:3]

    assert head == f"# {code}: {each.title}"
    assert kind == f"**{str(each.severity).capitalize()}**, reason `{each.group}`."


@pytest.mark.parametrize("code", CODES)
def test_the_failing_example_gives_the_code_once(code: str) -> None:
    """With its usual severity, at the place and in the words that the page shows."""
    if code == UNSERVED and not refuses_anything():
        pytest.skip("this server runs all of the language, so nothing gives the code")
    page = Page(code)
    report = page.judged("wrong")
    given = [each for each in report.diagnostics if each.code == code]
    others = {each.code for each in report.diagnostics} - {code, UNSERVED}

    assert [each.severity for each in given] == [CODES[code].severity]
    assert others == page.also
    assert given[0].render(report.source) + "\n" == page.marked("output").text


@pytest.mark.parametrize("code", CODES)
def test_the_fixed_example_gives_nothing(code: str) -> None:
    """Neither this code nor another, and it is in the canonical layout."""
    page = Page(code)
    found = [each.code for each in page.judged("fixed").diagnostics]
    fixed = page.marked("fixed")

    assert [each for each in found if each != UNSERVED or code == UNSERVED] == []
    if fixed.language == "wf":
        assert format_text(fixed.text, "fixed.wf").text == fixed.text


@pytest.mark.parametrize("code", CODES)
def test_a_page_says_what_why_and_how(code: str) -> None:
    """Its sections, in this order, none of them empty."""
    sections = re.split(r"^## .*$", Page(code).text, flags=re.MULTILINE)
    headings = re.findall(r"^## (.*)$", Page(code).text, flags=re.MULTILINE)

    assert headings[:3] == ["Why it matters", "Example", "Fix"]
    assert all(section.strip() for section in sections)
