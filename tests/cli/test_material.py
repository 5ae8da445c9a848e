"""Output schemas and prompt snippets from files, for the commands that send sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from runkon.v1 import runs_pb2, types_pb2, workflows_pb2
from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, serving
from support.run_events import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        fake.answers["StartRun"] = runs_pb2.StartRunResponse(
            run=types_pb2.Run(id=RUN_ID), started=True
        )
        fake.answers["PutWorkflow"] = workflows_pb2.PutWorkflowResponse(created=True)
        fake.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(valid=True)
        yield fake


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A workflow, a schema and two snippets, and what lies beside them by chance."""
    for name in ("w.wf", "verdict.yaml", "tone.md", "style.txt", "notes.rst", ".hidden.md"):
        (tmp_path / name).write_text(f"text of {name}")
    return tmp_path


def invoke(server: FakeServer, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*words, "--address", server.address, "--principal", "ada"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("command", "method"),
    [
        (["run"], "StartRun"),
        (["workflows", "put"], "PutWorkflow"),
        (["workflows", "validate"], "ValidateWorkflow"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else value,
)
def test_schemas_and_snippets_come_from_files(
    server: FakeServer, files: Path, command: list[str], method: str
) -> None:
    """Under the name of the file, under another one, or all of a folder."""
    schema, snippet = str(files / "verdict.yaml"), f"voice={files / 'tone.md'}"
    code, _ = invoke(
        server, *command, str(files / "w.wf"), "--schema", schema, "--snippet", snippet
    )

    asked: Any = server.asked(method)
    assert code == Exit.OK
    assert dict(asked.output_schemas) == {"verdict": "text of verdict.yaml"}
    assert dict(asked.snippets) == {"voice": "text of tone.md"}


def test_a_folder_stands_for_its_files(server: FakeServer, files: Path) -> None:
    """Those with the endings of their kind, none that is hidden."""
    folder = str(files)
    invoke(server, "workflows", "put", f"{folder}/w.wf", "--schema", folder, "--snippet", folder)

    asked = server.asked("PutWorkflow")
    assert set(asked.output_schemas) == {"verdict"}
    assert dict(asked.snippets) == {"tone": "text of tone.md", "style": "text of style.txt"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--schema", "a=verdict.yaml", "--schema", "a=verdict.yaml"], "'a' is given twice"),
        (["--snippet", "none.md"], "cannot read none.md"),
    ],
)
def test_what_cannot_be_read_is_refused(
    server: FakeServer,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(files)
    code, err = invoke(server, "workflows", "validate", "w.wf", *words)

    assert (code, complaint in err) == (Exit.USAGE, True)
    assert server.requests == []
