"""`runkon workflows format` and `graph` against a server that answers what the test says."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import pytest
from click.testing import CliRunner

from runkon.v1 import types_pb2, workflows_pb2
from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, Refusal, serving
from support.run_events import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEAT: Final = "workflow w {\n  call a\n}\n"
UGLY: Final = "workflow w { call a }"
BROKEN: Final = "workflow w\n"
DIAGNOSTIC: Final = types_pb2.Diagnostic(
    code="WF201", severity=types_pb2.SEVERITY_ERROR, message="expected `{`", line=1, column=10
)


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def layout(request: Any) -> workflows_pb2.FormatWorkflowResponse:
    """What the server makes of the three texts."""
    if request.source == BROKEN:
        return workflows_pb2.FormatWorkflowResponse(diagnostics=[DIAGNOSTIC])
    return workflows_pb2.FormatWorkflowResponse(formatted=NEAT, changed=request.source != NEAT)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        fake.answers["FormatWorkflow"] = layout
        fake.answers["GraphWorkflow"] = workflows_pb2.GraphWorkflowResponse(graph="a picture\n")
        yield fake


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file of each text."""
    found = {}
    for name, text in (("neat", NEAT), ("ugly", UGLY), ("broken", BROKEN)):
        found[name] = tmp_path / f"{name}.wf"
        found[name].write_text(text)
    return found


def invoke(server: FakeServer, *words: object, text: str | None = None) -> Answer:
    """Run a command of `runkon workflows`."""
    line = ["--address", server.address, "workflows", *map(str, words)]
    result = CliRunner().invoke(main, line, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def test_a_layout_is_printed_and_the_file_left_alone(
    server: FakeServer, files: dict[str, Path]
) -> None:
    assert invoke(server, "format", files["ugly"]) == (Exit.OK, NEAT, "")
    assert files["ugly"].read_text() == UGLY


def test_standard_input_is_laid_out(server: FakeServer) -> None:
    assert invoke(server, "format", "-", text=UGLY) == (Exit.OK, NEAT, "")


def test_checking_names_what_is_not_laid_out(server: FakeServer, files: dict[str, Path]) -> None:
    ugly, neat = files["ugly"], files["neat"]

    assert invoke(server, "format", "--check", ugly, neat) == (Exit.FAILED, f"{ugly}\n", "")
    assert invoke(server, "format", "--check", neat) == (Exit.OK, "", "")
    assert ugly.read_text() == UGLY


def test_writing_changes_only_what_has_another_layout(
    server: FakeServer, files: dict[str, Path]
) -> None:
    """Rights and links stay, nothing is left beside the files."""
    ugly, neat = files["ugly"], files["neat"]
    ugly.chmod(0o640)
    before = neat.stat()
    link = ugly.with_name("link.wf")
    link.symlink_to(ugly)
    answer = invoke(server, "format", "--write", link, neat)

    assert answer == (Exit.OK, f"{link}\n", "")
    assert (ugly.read_text(), stat.S_IMODE(ugly.stat().st_mode)) == (NEAT, 0o640)
    assert link.is_symlink()
    assert neat.stat() == before
    assert {each.name for each in ugly.parent.iterdir()} == {
        "ugly.wf", "neat.wf", "broken.wf", "link.wf",
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--check", "--write"])
def test_what_cannot_be_read_is_told_and_the_rest_is_done(
    server: FakeServer, files: dict[str, Path], option: str
) -> None:
    broken, ugly = files["broken"], files["ugly"]
    answer = invoke(server, "format", option, broken, ugly)

    assert answer[:2] == (Exit.FAILED, f"{ugly}\n")
    assert answer.err == f"{broken}:1:10: error WF201: expected `{{`\n"
    assert broken.read_text() == BROKEN


def test_as_json_every_file_has_its_layout(server: FakeServer, files: dict[str, Path]) -> None:
    answer = invoke(server, "format", "--json", files["ugly"])

    assert json.loads(answer.out) == {
        str(files["ugly"]): {"formatted": NEAT, "changed": True, "diagnostics": []}
    }


@pytest.mark.parametrize("words", [("--check", "--write", "x.wf"), ("--write", "-")])
def test_options_that_contradict_are_wrong_usage(server: FakeServer, words: tuple[str]) -> None:
    assert invoke(server, "format", *words, text=UGLY).code == Exit.USAGE
    assert server.requests == []


@pytest.mark.parametrize(
    ("argument", "subject"),
    [("deploy", "workflow"), ("deploy@3", "workflow"), (RUN_ID, "run_id"), ("-", "source")],
)
def test_what_is_drawn_is_a_stored_workflow_a_run_or_a_text(
    server: FakeServer, argument: str, subject: str
) -> None:
    answer = invoke(server, "graph", argument, text=UGLY)
    request = server.asked("GraphWorkflow")

    assert answer == (Exit.OK, "a picture\n", "")
    assert request.WhichOneof("subject") == subject
    assert getattr(request, subject) == (UGLY if argument == "-" else argument)
    assert request.format == workflows_pb2.GRAPH_FORMAT_MERMAID


@pytest.mark.parametrize(
    ("words", "graph_format"),
    [
        (("--format", "dot"), workflows_pb2.GRAPH_FORMAT_DOT),
        (("-o", "w.svg"), workflows_pb2.GRAPH_FORMAT_SVG),
        (("-o", "w.json"), workflows_pb2.GRAPH_FORMAT_JSON),
        (("-o", "w.md"), workflows_pb2.GRAPH_FORMAT_MERMAID),
        (("-o", "w.svg", "--format", "mermaid"), workflows_pb2.GRAPH_FORMAT_MERMAID),
    ],
)
def test_the_format_is_said_or_told_by_the_suffix(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    graph_format: int,
) -> None:
    """With -o the picture goes to the file and nothing is printed."""
    monkeypatch.chdir(tmp_path)
    answer = invoke(server, "graph", "deploy", *words)

    assert server.asked("GraphWorkflow").format == graph_format
    assert answer.out == ("" if "-o" in words else "a picture\n")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["a picture\n"] * ("-o" in words)


def test_a_pipe_is_written_to_and_not_replaced(server: FakeServer, tmp_path: Path) -> None:
    """So that `-o /dev/stdout` and its like are safe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    answer = invoke(server, "graph", "deploy", "-o", pipe)
    read = os.read(reader, 100)
    os.close(reader)

    assert (answer.code, read) == (Exit.OK, b"a picture\n")
    assert pipe.is_fifo()


def test_a_picture_that_cannot_be_written_is_wrong_usage(
    server: FakeServer, tmp_path: Path
) -> None:
    answer = invoke(server, "graph", "deploy", "-o", tmp_path / "missing" / "w.svg")

    assert answer.code == Exit.USAGE
    assert "cannot write" in answer.err


def test_a_text_that_cannot_be_drawn_is_shown_with_its_line(
    server: FakeServer, files: dict[str, Path]
) -> None:
    server.answers["GraphWorkflow"] = Refusal(
        grpc.StatusCode.INVALID_ARGUMENT, "DSL_SYNTAX", "the workflow is refused"
    )
    server.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(
        diagnostics=[DIAGNOSTIC]
    )
    answer = invoke(server, "graph", files["broken"])

    assert answer[:2] == (Exit.REFUSED, "")
    assert answer.err.startswith(f"{files['broken']}:1:10: error WF201")
