"""The command line and the RPCs say the same of the same texts: there is one implementation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from support.live_api import live_api

if TYPE_CHECKING:
    from pathlib import Path

TEXTS: Final = {
    "good": "workflow good {\n  call a\n}\n",
    "ugly": "// why\nworkflow ugly { call a call b\n\n\n if a.m { call c } }",
    "marked": "\ufeffworkflow marked {\r\n\tcall a { retires = 1 }\r\n}\r\n",
    "warned": "workflow warned { inputs { dry_run } parallel { min_success = 3 call a } }",
    "children": "workflow children { call workflow other gate deploy { } }",
    "meaning": 'workflow meaning { if x.m { } call "x.md" script s { run = "{{b}}" } }',
    "five": "workflow five {\n meta { trigger = no }\n inputs { a, b }\n call a { timeout = 2h }\n"
    " iff a.m { call b }\n if never.m { }\n gate human_review { on_timeout = approve }\n}\n",
    "open": "workflow open { call a { retries = 日本 } if a.m {",
    "many": "workflow many { " + "call a { x = 1 } " * 120 + "if never.m { } }",
    "hopeless": "workflow hopeless { " + "call a { , } " * 120 + "}",
    "wrong": "hello",
}


def run(address: str, folder: Path, *words: str) -> str:
    """What `runkon` prints, in a process of its own."""
    command = [sys.executable, "-m", "runkon_client.cli", "--address", address, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        tmp_path.joinpath(f"{name}.wf").write_bytes(text.encode())
    return tmp_path


FILES: Final = tuple(f"{name}.wf" for name in TEXTS)


@pytest.mark.parametrize("options", [(), ("--strict",)])
async def test_check_finds_what_validate_workflow_finds(
    database: str, folder: Path, options: tuple[str, ...]
) -> None:
    """Every field of every finding, and whether it may be stored.

    What they call is looked for on the server by both.
    """

    def ask(address: str) -> tuple[Any, Any]:
        check = ["check", "--format", "json", "--no-scripts", "--server", address]
        return (
            json.loads(run(address, folder, *check, *FILES, *options)),
            json.loads(run(address, folder, "--json", "workflows", "validate", *FILES, *options)),
        )

    async with live_api(database) as api:
        ours, theirs = await asyncio.to_thread(ask, api.address)
    found = {each["path"]: (each["valid"], each["diagnostics"]) for each in ours["files"]}

    assert found == {path: (each["valid"], each["diagnostics"]) for path, each in theirs.items()}
    assert sum(len(diagnostics) for _, diagnostics in found.values()) > 200
    fine = {"good.wf", "ugly.wf"}
    if not options:
        fine |= {"marked.wf", "warned.wf"}
    assert {path for path, (valid, _) in found.items() if valid} == fine


async def test_fmt_writes_what_format_workflow_answers(database: str, folder: Path) -> None:
    """Files with errors are left alone by both."""

    def ask(address: str) -> tuple[Any, list[str]]:
        answer = json.loads(run(address, folder, "--json", "workflows", "format", *FILES))
        return answer, run(address, folder, "fmt").splitlines()

    async with live_api(database) as api:
        theirs, changed = await asyncio.to_thread(ask, api.address)

    assert changed == sorted(path for path, each in theirs.items() if each["changed"])
    assert len(changed) > 3
    for path, each in theirs.items():
        before = TEXTS[path.removesuffix(".wf")].encode()
        assert folder.joinpath(path).read_bytes() == (each["formatted"].encode() or before)


async def test_graph_draws_what_graph_workflow_draws(database: str, folder: Path) -> None:
    """In every format; also what the server does not run yet."""

    def ask(address: str) -> list[tuple[str, str]]:
        found = []
        for graph_format in ("mermaid", "dot", "json", "svg"):
            options = ("meaning.wf", "--format", graph_format)
            ours = run(address, folder, "graph", *options)
            found.append((ours, run(address, folder, "workflows", "graph", *options)))
        return found

    async with live_api(database) as api:
        found = await asyncio.to_thread(ask, api.address)

    assert [ours for ours, _ in found] == [theirs for _, theirs in found]
    assert all("x.m" in ours for ours, _ in found)
