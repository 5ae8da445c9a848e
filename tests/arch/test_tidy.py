"""The tree keeps its own rules: sizes, leftovers, dead files."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
SHIPPED: Final = ("runkon_server", "runkon_client")
CODE: Final = (*SHIPPED, "tests", "benchmarks", "examples", "tools")
MODULE_LINES_MAX: Final = 600
FUNCTION_LINES_MAX: Final = 70
TEXTS: Final = {
    *(".py", ".proto", ".md", ".toml", ".yaml", ".yml", ".wf", ".sql", ".sh", ".service"),
    *(".go", ".java", ".json", ".mod", ".rs", ".ts", ".xml"),
}
BUILT: Final = {"gen", "dist", "node_modules", "target"}
"""Folders that the builds of `examples/clients` make."""
OWN_FOLDERS: Final = (*CODE, "protos", "docs", "deploy", ".ci")
LEFTOVER: Final = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b")
MACHINE: Final = re.compile(
    r"(?<![\w./-])/(?:work|farm|root)(?![\w-])"
    r"|pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|deb\.debian\.org|proxy\.golang\.org"
)


def is_generated(path: Path) -> bool:
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def python_files(*folders: str) -> Iterator[Path]:
    """Every hand-written Python file below the folders."""
    for folder in folders:
        yield from (path for path in sorted(ROOT.joinpath(folder).rglob("*.py")))


def text_files() -> Iterator[Path]:
    """Every hand-written text of the project but this file, which names what it forbids."""
    found = [path for path in ROOT.iterdir() if path.is_file() and not path.name.endswith(".lock")]
    for folder in OWN_FOLDERS:
        found += [path for path in ROOT.joinpath(folder).rglob("*") if path.is_file()]
    for path in found:
        is_text = path.suffix in TEXTS or path.name in ("Dockerfile", "run")
        is_ours = not is_generated(path) and BUILT.isdisjoint(path.relative_to(ROOT).parts)
        if is_text and is_ours and path != Path(__file__):
            yield path


def places(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_modules_are_small() -> None:
    """No hand-written module has more than 600 lines."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (*python_files(*CODE), ROOT / "dev.py")
        if (lines := len(path.read_bytes().splitlines())) > MODULE_LINES_MAX
    }

    assert not long


def test_functions_fit_a_screen() -> None:
    """No function, its docstring included, has more than 70 lines."""
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": lines
        for path in (*python_files(*CODE), ROOT / "dev.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }

    assert not long


def test_nothing_is_left_to_be_done() -> None:
    """No reminder and no unwritten function; what remains to be done is an issue."""
    assert places(LEFTOVER) == []


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No path of a workplace, and no registry: which one is used is the installer's setting."""
    assert places(MACHINE) == []


def tracked(*options: str) -> list[str]:
    """The paths that `git ls-files` names, each with what the options add to it."""
    if not ROOT.joinpath(".git").exists():
        pytest.skip("not a git work tree: an archive says nothing of what is tracked")
    command = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return listed.rstrip("\0").split("\0") if listed else []


def test_no_link_is_tracked() -> None:
    """A link into one machine once went along as `.venv`, and no clone could be set up any more."""
    links = [entry for entry in tracked("--stage") if entry.startswith("120000 ")]

    assert tracked()
    assert not links


def test_nothing_that_is_ignored_is_tracked() -> None:
    """What .gitignore names is made on each machine anew."""
    assert tracked("--cached", "--ignored", "--exclude-standard") == []


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_by(path: Path) -> Iterator[str]:
    """Every name the file imports, modules and their contents alike, made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def entry_points() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["scripts"], *project["entry-points"].values()]
    return {target.partition(":")[0] for group in groups for target in group.values()}


def test_every_shipped_module_is_used() -> None:
    """Each is an entry point, is imported by shipped code or a caller, or is run by alembic.

    `__main__` is what `python -m` runs.
    """
    callers = [*python_files(*SHIPPED, "examples", "benchmarks")]
    used = {
        name for path in callers for name in imported_by(path) if name != module_of(path)
    } | entry_points()
    dead = [
        str(path.relative_to(ROOT))
        for path in python_files(*SHIPPED)
        if path.name not in ("__init__.py", "__main__.py")
        and "migrations" not in path.parts
        and module_of(path) not in used
        and module_of(path) not in public_modules()
    ]

    assert not dead


def test_what_a_package_of_tests_shares_ends_with_it() -> None:
    """Pytest takes a folder without `__init__.py` for none: its fixtures would last for all tests.

    A server of theirs would then pass the failpoints that other tests arm in this process.
    """
    sharing = {
        path.parent
        for path in python_files("tests")
        if path.name == "conftest.py" and 'scope="package"' in path.read_text(encoding="utf-8")
    }

    assert sharing
    assert [folder for folder in sharing if not (folder / "__init__.py").exists()] == []


def public_modules() -> set[str]:
    """What users import and nothing of ours does: named in the documents."""
    papers = [*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in papers)
    return set(re.findall(r"(?:from|import)\s+(runkon_client(?:\.\w+)+)", text))


def test_every_shared_test_module_is_used() -> None:
    """What lies in tests/support is imported or loaded by a test."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in python_files("tests")
        if path.name != "__init__.py"
    )
    dead = [
        path.name
        for path in python_files("tests/support")
        if path.name != "__init__.py" and f"support.{path.stem}" not in text
    ]

    assert not dead
