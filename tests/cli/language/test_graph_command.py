"""`runkon graph`: files are drawn here, what the server stores is drawn there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runkon.v1 import workflows_pb2
from runkon_server.dsl.graph import GraphFormat, graph
from support.fake_server import serving
from support.run_events import RUN_ID
from support.wf_files import runkon
from support.workflows import read

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "workflow w { call a call b }"
NO_SERVER = ("--address", "127.0.0.1:1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test, with a workflow in it."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("w.wf").write_text(TEXT)
    return tmp_path


def drawn(graph_format: GraphFormat) -> str:
    definition = read(TEXT).definition
    assert definition is not None
    return graph(definition, graph_format)


@pytest.mark.parametrize("graph_format", GraphFormat)
def test_a_file_is_drawn_without_a_server(graph_format: GraphFormat) -> None:
    answer = runkon(*NO_SERVER, "graph", "w.wf", "--format", graph_format)

    assert answer == (0, drawn(graph_format), "")


@pytest.mark.parametrize(
    ("name", "graph_format"),
    [
        ("w.svg", GraphFormat.SVG),
        ("w.json", GraphFormat.JSON),
        ("w.dot", GraphFormat.DOT),
        ("w.txt", GraphFormat.MERMAID),
    ],
)
def test_the_suffix_of_the_output_says_how(
    folder: Path, name: str, graph_format: GraphFormat
) -> None:
    assert runkon("graph", "w.wf", "-o", name) == (0, "", "")
    assert folder.joinpath(name).read_text() == drawn(graph_format)


def test_standard_input_is_drawn_too() -> None:
    assert runkon("graph", "-", text=TEXT).out == drawn(GraphFormat.MERMAID)


def test_json_puts_the_picture_into_a_document() -> None:
    document = json.loads(runkon("--json", "graph", "w.wf").out)

    assert document == {"format": "mermaid", "graph": drawn(GraphFormat.MERMAID)}


def test_a_file_with_errors_is_told_and_ends_with_1(folder: Path) -> None:
    folder.joinpath("w.wf").write_text("workflow w { call 3x }")
    answer = runkon("graph", "w.wf")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("w.wf:1:19: error WF201")


@pytest.mark.parametrize("words", [["gone.wf"], ["w.wf", "-o", "no/such/folder.svg"]])
def test_what_cannot_be_read_or_written_ends_with_2(words: list[str]) -> None:
    answer = runkon("graph", *words)

    assert (answer.code, answer.out) == (2, "")
    assert "No such file or directory" in answer.err


@pytest.mark.parametrize(("subject", "field"), [(RUN_ID, "run_id"), ("w@3", "workflow")])
def test_runs_and_stored_workflows_are_drawn_by_the_server(subject: str, field: str) -> None:
    with serving() as fake:
        fake.answers["GraphWorkflow"] = workflows_pb2.GraphWorkflowResponse(graph="a picture\n")
        answer = runkon("--address", fake.address, "graph", subject, "--format", "svg")
        request = fake.asked("GraphWorkflow")

    assert answer == (0, "a picture\n", "")
    assert getattr(request, field) == subject
    assert request.format == workflows_pb2.GRAPH_FORMAT_SVG
