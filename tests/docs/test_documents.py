"""Documents keep their word: links lead somewhere, programs use what is there."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

import runkon_client
from runkon_client import ActionOutput, Actions, Client, Task, Worker, values
from runkon_client import worker as worker_package
from runkon_client.worker import GateTask, ItemsTask, scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
PAPERS: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"))
)
FENCE: Final = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
HOMES: Final[dict[str, Any]] = {
    "runkon_client": runkon_client,
    "runkon_client.values": values,
    "runkon_client.worker": worker_package,
    "runkon_client.worker.scripts": scripts,
}
KINDS: Final = {
    "task": (Task, ItemsTask, GateTask),
    "worker": (Worker,),
    "actions": (Actions,),
    "client": (Client,),
}
"""What a variable of this name can be in the documents' programs."""
CALLS: Final[dict[str, Callable[..., object]]] = {
    "ActionOutput": ActionOutput,
    "Worker": Worker,
    "Client": Client,
}


def prose_of(paper: str) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", (ROOT / paper).read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def programs() -> Iterator[Any]:
    """Every Python block of every document."""
    for paper in PAPERS:
        blocks = FENCE.findall((ROOT / paper).read_text(encoding="utf-8"))
        texts = [text for language, text in blocks if language == "python"]
        yield from (pytest.param(text, id=f"{paper}-{n}") for n, text in enumerate(texts))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_link_between_documents_leads_somewhere(paper: str) -> None:
    """The file is there, and so is the heading behind `#`; links to the web are not followed."""
    broken = []
    for target in LINK.findall(prose_of(paper)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / paper).parent / file if file else ROOT / paper
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("text", [*programs()])
def test_every_program_uses_names_that_exist(text: str) -> None:
    """It compiles; imports, attributes and keywords of the client's classes are there."""
    tree = ast.parse(text)
    compile(tree, "a document", "exec")
    missing = [name for node in ast.walk(tree) for name in unknown_in(node)]

    assert missing == []


def unknown_in(node: ast.AST) -> list[str]:
    """What a node uses of the client that the client does not have."""
    match node:
        case ast.ImportFrom(module=str(module), names=names) if module in HOMES:
            return [alias.name for alias in names if not hasattr(HOMES[module], alias.name)]
        case ast.Attribute(value=ast.Name(id=variable), attr=name) if variable in KINDS:
            is_known = any(hasattr(kind, name) for kind in KINDS[variable])
            return [] if is_known else [f"{variable}.{name}"]
        case ast.Call(func=ast.Name(id=called), keywords=keywords) if called in CALLS:
            known = inspect.signature(CALLS[called]).parameters
            return [f"{called}({k.arg}=)" for k in keywords if k.arg not in known]
        case _:
            return []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("from runkon_client import Nothing", ["Nothing"]),
        ("task.run_di", ["task.run_di"]),
        ("ActionOutput(marker=1)", ["ActionOutput(marker=)"]),
    ],
)
def test_a_name_that_does_not_exist_is_found(text: str, missing: list[str]) -> None:
    """The check above can fail: one wrong import, attribute and keyword."""
    found = [name for node in ast.walk(ast.parse(text)) for name in unknown_in(node)]

    assert found == missing


def test_the_programs_about_workers_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is executed as a module, as `runkon worker` does; the ones with actions have some."""
    blocks = FENCE.findall((ROOT / "docs/writing-a-worker.md").read_text(encoding="utf-8"))
    texts = [text for language, text in blocks if language == "python"]
    names: list[str] = []
    for text in texts:
        monkeypatch.setitem(sys.modules, "a_document", ModuleType("a_document"))
        module = vars(sys.modules["a_document"])
        exec(compile(text, "a document", "exec"), module)  # noqa: S102 - our own document
        holder = module.get("actions") or getattr(module.get("worker"), "actions", None)
        if holder is not None:
            assert not holder.is_empty
            names += [*holder.names, *holder.item_providers, *holder.gate_types]

    assert {"greet", "review", "deploy", "charge", "migrate", "crunch"} <= set(names)
    assert {"services", "office_hours"} <= set(names)


def test_the_glossary_is_in_order() -> None:
    """Words are found by the alphabet, each once."""
    text = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)

    assert len(words) > 30
    assert words == sorted(set(words))


def test_every_decision_record_is_listed() -> None:
    """The index names every record, with the title that it has."""
    index = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("docs/adr/0*.md"))[1:]:
        title = path.read_text(encoding="utf-8").partition("\n")[0].partition(". ")[2]
        assert f"| [{path.name[:4]}]({path.name}) | {title} |" in index
