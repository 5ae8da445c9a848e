"""How the client finds the commands that the server's package brings along."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING

import click
import pytest

from runkon.v1 import workers_pb2, workflows_pb2
from runkon_client.cli import EXTENSIONS
from runkon_client.cli.extensions import GROUP, load_extension
from runkon_server.dsl.snapshot import dump
from support.fake_server import serving
from support.wf_files import runkon, write_files
from support.workflows import accepted

if TYPE_CHECKING:
    from pathlib import Path

REGISTERED = sorted(each.name for each in entry_points(group=GROUP))


def install(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    """Make these the only entry points there are."""

    def found(*, group: str, name: str) -> EntryPoints:
        return EntryPoints(entries).select(group=group, name=name)

    monkeypatch.setattr("importlib.metadata.entry_points", found)


def test_every_command_that_is_listed_is_registered() -> None:
    """`graph` is registered too; the client puts its own in front of it."""
    assert sorted([*EXTENSIONS, "graph"]) == REGISTERED


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_command_can_be_loaded(name: str) -> None:
    """And its help begins like the line in the table."""
    command = load_extension(name)
    line = EXTENSIONS.get(name, command.get_short_help_str(limit=200))

    assert command.name == name
    assert line.split()[0] == command.get_short_help_str(limit=200).split()[0]


@pytest.mark.parametrize("name", ["check", "fmt"])
def test_help_says_what_the_exit_codes_mean(name: str) -> None:
    answer = runkon(name, "--help")

    assert answer.code == 0
    assert "Exit codes: 0 " in " ".join(answer.out.split())


@pytest.mark.parametrize("words", [["check", "w.wf"], ["fmt", "w.wf"]])
def test_work_on_files_imports_nothing_of_a_server(tmp_path: Path, words: list[str]) -> None:
    """In an interpreter of its own: no gRPC, no database, no event loop."""
    write_files(tmp_path, w="call x")
    program = (
        "import sys\n"
        "from runkon_client.cli import main\n"
        f"main({words!r}, standalone_mode=False)\n"
        "heavy = {'grpc', 'google', 'rich', 'asyncio', 'psycopg', 'sqlalchemy', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_without_the_servers_package_the_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    answer = runkon("check", "x.wf")

    assert answer.code == 2
    assert answer.err.splitlines() == [
        "error: `runkon check` comes with the server's package, which is not installed here",
        "hint: install all of `runkon`, or ask a server: see `runkon workflows --help`",
    ]


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("lsp", "no_such_package.lsp:lsp", GROUP))
    answer = runkon("lsp")

    assert answer.code == 2
    assert answer.err == (
        "error: `runkon lsp` cannot be loaded from no_such_package.lsp:lsp:"
        " No module named 'no_such_package'\n"
    )


def test_any_installed_package_may_bring_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is all that the client knows of the server's package."""
    install(monkeypatch, EntryPoint("fmt", f"{__name__}:a_command", GROUP))

    assert runkon("fmt") == (0, "formatted\n", "")


@click.command()
def a_command() -> None:
    click.echo("formatted")


def test_called_workflows_are_looked_for_on_a_server(tmp_path: Path) -> None:
    """By the client, whose options and errors hold; each is asked for once."""
    write_files(
        tmp_path,
        a="call workflow stored\ncall workflow stored\ncall workflow gone",
        b="call workflow stored",
    )
    stored = dump(accepted("inputs { name } call x"))

    def answer(request: workflows_pb2.GetWorkflowRequest) -> workflows_pb2.GetWorkflowResponse:
        found = workflows_pb2.Workflow(name=request.name, definition_json=stored)
        return workflows_pb2.GetWorkflowResponse(workflow=found)

    with serving() as fake:
        fake.answers["GetWorkflow"] = answer
        out = runkon("--namespace", "n", "check", tmp_path, "--server", fake.address).out
        asked = [(each.namespace, each.name) for _, each in fake.requests]

    assert out.count("error WF509: `stored` needs the input `name`") == 3
    assert asked == [("n", "stored"), ("n", "gone")]


def test_served_is_what_connected_workers_of_the_namespace_serve(tmp_path: Path) -> None:
    """All of them together; the server's own actions are there in the namespace `default`."""
    write_files(
        tmp_path,
        a='call build\ncall echo\ncall tst\ngate deploy { }\nscript s { run = "true" }',
    )
    connected = [
        workers_pb2.ConnectedWorker(worker_id="w", actions=["build"]),
        workers_pb2.ConnectedWorker(worker_id="v", gate_types=["deploy"], scripts=True),
    ]

    def told(*words: str) -> list[str]:
        out = runkon(*words, "check", tmp_path, "--no-scripts", *asking, "--served").out
        return [line.split("error ")[1] for line in out.splitlines() if ": error " in line]

    with serving() as fake:
        asking = ("--server", fake.address)
        fake.answers["ListWorkers"] = workers_pb2.ListWorkersResponse(workers=connected)
        some = told()
        elsewhere = told("--namespace", "n")
        fake.answers["ListWorkers"] = workers_pb2.ListWorkersResponse()
        none = told()

    assert some == ["WF525: no worker serves `tst`"]
    assert elsewhere == ["WF525: no worker serves `echo`", "WF525: no worker serves `tst`"]
    assert [each[:5] for each in none] == ["WF525", "WF525", "WF528", "WF529"]
    assert [each.namespace for _, each in fake.requests] == ["", "n", ""]


def test_served_needs_a_server_to_ask(tmp_path: Path) -> None:
    write_files(tmp_path, a="call build")
    answer = runkon("check", tmp_path, "--served")

    assert answer.code == 2
    assert "say which with --server" in answer.err


def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, a="call workflow stored")
    answer = runkon("check", tmp_path, "--server", "127.0.0.1:1")

    assert answer.code == 5
    assert answer.err.startswith("error: no server answers at 127.0.0.1:1\n")


WORKER = """\
from runkon_client import Actions

actions = Actions()


@actions.action("build")
def build(task): ...
"""


def test_calls_are_held_against_the_actions_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that are named together; the server's own actions are always there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = ("one", "two", "any")
    for name, added in zip(names, ("", '"test"', "fallback"), strict=True):
        decorator = "@actions.fallback" if added == "fallback" else f"@actions.action({added})"
        text = f"{WORKER}\n\n{decorator}\ndef more(task): ...\n" if added else WORKER
        tmp_path.joinpath(f"worker_{name}.py").write_text(text.replace("build", f"build-{name}", 1))
    tmp_path.joinpath("known.toml").write_text('actions = ["known"]')
    write_files(tmp_path, a="call build-one\ncall build-two\ncall test\ncall echo\ncall known")

    def told(*words: str) -> list[str]:
        out = runkon("check", "a.wf", *words).out
        return [line.split("`")[1] for line in out.splitlines() if "error WF525" in line]

    assert told("--worker", "worker_one.py") == ["build-two", "test", "known"]
    assert told("--worker", "worker_one.py", "--worker", "worker_two.py") == ["known"]
    assert told("--worker", "worker_one.py", "--known", "known.toml") == ["build-two", "test"]
    assert told("--worker", "worker_any.py") == []
    assert runkon("check", "a.wf", "--worker", "nobody.py").code == 2
