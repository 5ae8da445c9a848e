"""`runkon lsp` as a process, spoken to as an editor speaks to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner

from runkon_server.cli.lsp import _own_pages, lsp
from runkon_server.cli.lsp_server.checking import LARGE, Checks
from support.waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
PROGRAM: Final = (sys.executable, "-m", "runkon_server.cli.lsp_server")
TYPO: Final = """\
workflow main {
  call plan { retires = 2 }
  if plan.ok {
    call "a/ship.md"
  }
}
"""
WATCHING: Final = {"workspace": {"didChangeWatchedFiles": {"dynamicRegistration": True}}}


class Editor:
    """The client's side of the protocol."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.asked: Queue[dict[str, Any]] = Queue()
        self._answers: Queue[dict[str, Any]] = Queue()
        self._told: dict[str, Queue[list[dict[str, Any]]]] = {}
        self._lock = threading.Lock()
        self._next_id = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while header := stream.readline():
            length = int(header.partition(b":")[2])
            while stream.readline().strip():
                pass
            self._sort(json.loads(stream.read(length)))

    def _sort(self, message: dict[str, Any]) -> None:
        if message.get("method") == "textDocument/publishDiagnostics":
            params = message["params"]
            self._told_of(params["uri"]).put(params["diagnostics"])
        else:
            (self.asked if "method" in message else self._answers).put(message)

    def _told_of(self, uri: str) -> Queue[list[dict[str, Any]]]:
        with self._lock:
            return self._told.setdefault(uri, Queue())

    def _send(self, message: dict[str, Any]) -> None:
        stream = self.process.stdin
        assert stream is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        stream.flush()

    def notify(self, method: str, params: object = None) -> None:
        self._send({"method": method, "params": params})

    def request(self, method: str, params: object = None) -> Any:
        """The result; an error fails the test."""
        self._next_id += 1
        self._send({"id": self._next_id, "method": method, "params": params})
        answer = self._answers.get(timeout=PATIENCE_S)
        assert answer["id"] == self._next_id
        assert "error" not in answer, answer
        return answer["result"]

    def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """The next ones that are published for a document."""
        return self._told_of(uri).get(timeout=PATIENCE_S)

    def codes(self, uri: str) -> list[str]:
        return [found["code"] for found in self.diagnostics(uri)]

    def start(self, folder: Path | None, capabilities: dict[str, Any] | None = None) -> Any:
        """Initialise; the server's capabilities."""
        uri = None if folder is None else folder.as_uri()
        folders = None if uri is None else [{"uri": uri, "name": "folder"}]
        result = self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": uri,
                "workspaceFolders": folders,
                "capabilities": capabilities or {},
            },
        )
        self.notify("initialized", {})
        return result["capabilities"]

    def open(self, uri: str, text: str) -> None:
        item = {"uri": uri, "languageId": "runkon", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def change(self, uri: str, text: str, version: int = 2) -> None:
        self.notify(
            "textDocument/didChange",
            {
                "textDocument": {"uri": uri, "version": version},
                "contentChanges": [{"text": text}],
            },
        )

    def ask(self, what: str, uri: str, line: int, character: int, **more: object) -> Any:
        """Ask about a position."""
        place = {"line": line, "character": character}
        return self.request(
            f"textDocument/{what}", {"textDocument": {"uri": uri}, "position": place, **more}
        )

    def leave(self) -> int:
        """Shut the server down as the protocol wants it; its exit code. It has no complaints."""
        self.request("shutdown")
        self.notify("exit")
        code = self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == b""
        return code


@contextlib.contextmanager
def connected(command: Sequence[str]) -> Iterator[Editor]:
    """An editor with a server of its own, not yet initialised."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield Editor(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@pytest.fixture
def editor() -> Iterator[Editor]:
    """One that runs on its own, without the client's command line."""
    with connected([*PROGRAM, "--docs-url", "https://docs.example/diagnostics#{code}"]) as editor:
        yield editor


def test_a_session_from_initialize_to_exit(editor: Editor, tmp_path: Path) -> None:
    """Diagnostics, completion, hover, definition, symbols, a fix, formatting; exit code 0."""
    uri = (tmp_path / "main.wf").as_uri()
    capabilities = editor.start(None)
    assert capabilities["textDocumentSync"]["change"] == 1

    editor.open(uri, TYPO)
    (found,) = editor.diagnostics(uri)
    assert found["code"] == "WF301"
    assert found["severity"] == 2
    assert found["range"] == {
        "start": {"line": 1, "character": 14},
        "end": {"line": 1, "character": 21},
    }
    assert found["codeDescription"] == {"href": "https://docs.example/diagnostics#WF301"}
    assert "did you mean `retries`?" in found["message"]

    (action,) = editor.request(
        "textDocument/codeAction",
        {
            "textDocument": {"uri": uri},
            "range": found["range"],
            "context": {"diagnostics": [found]},
        },
    )
    assert action["edit"]["changes"][uri] == [{"range": found["range"], "newText": "retries"}]

    items = editor.ask("completion", uri, 1, 16)["items"]
    assert items[0]["label"] == "retries"
    assert items[0]["textEdit"]["newText"] == "retries = "

    hovered = editor.ask("hover", uri, 1, 3)
    assert "One task for a worker" in hovered["contents"]["value"]

    (target,) = editor.ask("definition", uri, 2, 6)
    assert target["uri"] == uri
    assert target["range"]["start"] == {"line": 1, "character": 7}

    (workflow,) = editor.request("textDocument/documentSymbol", {"textDocument": {"uri": uri}})
    assert [child["name"] for child in workflow["children"]] == ["call plan", "if plan.ok"]

    editor.change(uri, "workflow main { call plan }")
    assert editor.diagnostics(uri) == []
    (edit,) = editor.request(
        "textDocument/formatting",
        {"textDocument": {"uri": uri}, "options": {"tabSize": 2, "insertSpaces": True}},
    )
    assert edit["newText"] == "workflow main {\n  call plan\n}\n"

    assert editor.leave() == 0


def test_the_command_runkon_lsp_is_the_same_server(tmp_path: Path) -> None:
    """As editors start it, found by its entry point."""
    command = (sys.executable, "-m", "runkon_client.cli", "lsp")
    uri = (tmp_path / "main.wf").as_uri()
    with connected(command) as editor:
        editor.start(tmp_path)
        editor.open(uri, TYPO)

        (found,) = editor.diagnostics(uri)

        assert found["code"] == "WF301"
        assert found["codeDescription"]["href"].endswith("/docs/diagnostics/WF301.md")
        assert editor.leave() == 0


def test_workflows_of_a_folder_are_checked_as_one_set(editor: Editor, tmp_path: Path) -> None:
    """A circle is told in both files; an input that a child comes to need, in its caller."""
    main, child = tmp_path / "main.wf", tmp_path / "deep" / "child.wf"
    child.parent.mkdir()
    main.write_text("workflow main { call workflow child }")
    child.write_text("workflow child { call workflow main }")
    editor.start(tmp_path)

    assert "WF520" in editor.codes(child.as_uri())
    assert "WF520" in editor.codes(main.as_uri())

    editor.open(child.as_uri(), child.read_text())
    editor.codes(child.as_uri())
    editor.change(child.as_uri(), "workflow child { inputs { who required } call greet }")
    assert editor.codes(child.as_uri()) == []
    assert "WF509" in editor.codes(main.as_uri())

    main.write_text('workflow main { call workflow child { inputs { who = "x" } } }')
    editor.notify(
        "workspace/didChangeWatchedFiles", {"changes": [{"uri": main.as_uri(), "type": 2}]}
    )
    assert editor.codes(main.as_uri()) == []

    editor.notify("textDocument/didClose", {"textDocument": {"uri": child.as_uri()}})
    assert "WF520" in editor.codes(child.as_uri()), "what the file says counts again"
    child.unlink()
    editor.notify(
        "workspace/didChangeWatchedFiles", {"changes": [{"uri": child.as_uri(), "type": 3}]}
    )
    assert editor.codes(child.as_uri()) == []
    assert "WF508" in editor.codes(main.as_uri())
    assert editor.leave() == 0


def test_definition_leads_into_another_file(editor: Editor, tmp_path: Path) -> None:
    """From `call workflow child` in a file outside any folder to the header of its neighbour."""
    child = tmp_path / "other-name.wf"
    child.write_text("// a comment\nworkflow child { call greet }\n")
    uri = (tmp_path / "main.wf").as_uri()
    editor.start(None)
    editor.open(uri, "workflow main { call workflow child }")

    (target,) = editor.ask("definition", uri, 0, 32)

    assert target["uri"] == child.as_uri()
    assert target["range"]["start"] == {"line": 1, "character": 9}
    assert editor.leave() == 0


def test_columns_are_utf_16_and_lines_end_in_crlf(editor: Editor, tmp_path: Path) -> None:
    """A tab, two astral characters and a wrong option on the second line of a CR LF file."""
    uri = (tmp_path / "main.wf").as_uri()
    editor.start(None)
    editor.open(uri, 'workflow main {\r\n\tcall x { as = "🚀🚀" retires = 1 }\r\n}\r\n')

    (found,) = editor.diagnostics(uri)

    assert found["range"]["start"] == {"line": 1, "character": 22}
    (edit,) = editor.request(
        "textDocument/formatting",
        {"textDocument": {"uri": uri}, "options": {"tabSize": 2, "insertSpaces": True}},
    )
    assert edit["newText"] == ('workflow main {\r\n  call x { as = "🚀🚀" retires = 1 }\r\n}\r\n')
    assert edit["range"]["end"] == {"line": 3, "character": 0}
    assert editor.leave() == 0


def test_an_encoding_the_editor_prefers_is_used(editor: Editor, tmp_path: Path) -> None:
    """The same in UTF-8, which the editor asks for first."""
    uri = (tmp_path / "main.wf").as_uri()
    encodings = {"general": {"positionEncodings": ["utf-8", "utf-16"]}}
    capabilities = editor.start(None, encodings)
    editor.open(uri, 'workflow main { call x { as = "🚀" retires = 1 } }')

    assert capabilities["positionEncoding"] == "utf-8"
    assert editor.diagnostics(uri)[0]["range"]["start"] == {"line": 0, "character": 37}
    assert editor.leave() == 0


def test_files_are_watched_if_the_editor_can_do_that(editor: Editor, tmp_path: Path) -> None:
    """The server asks for it once it is initialised."""
    editor.start(tmp_path, WATCHING)

    message = editor.asked.get(timeout=PATIENCE_S)

    (registration,) = message["params"]["registrations"]
    assert registration["method"] == "workspace/didChangeWatchedFiles"
    assert registration["registerOptions"]["watchers"][0]["globPattern"] == "**/*.wf"
    assert editor.leave() == 0


def test_a_large_document_is_judged_by_its_last_text(editor: Editor, tmp_path: Path) -> None:
    """Three changes in a row; a slow editor may have answers about those before, too."""
    uri = (tmp_path / "main.wf").as_uri()
    text = "workflow main {\n" + "  // words\n" * 8_000 + "  call x { {0} = 1 }\n}\n"
    editor.start(None)
    editor.open(uri, "workflow main { }")
    assert editor.diagnostics(uri) == []

    options = ["retires", "retriess", "max_turn"]
    for version, option in enumerate(options, 2):
        editor.change(uri, text.replace("{0}", option), version)

    told = ""
    while "`max_turn`" not in told:  # `diagnostics` fails when no more come
        (found,) = editor.diagnostics(uri)
        told = found["message"]
    assert editor.leave() == 0


async def test_a_large_document_is_checked_when_typing_stops() -> None:
    """Three changes before the moment is over are one check; a small document waits for none."""
    checked: list[str] = []
    checks = Checks(checked.append)
    for _ in range(3):
        checks.changed("large", LARGE)
    checks.changed("small", LARGE - 1)
    assert checked == ["small"]

    await until(lambda: len(checked) > 1, "the large one is checked")

    assert checked == ["small", "large"]
    assert not checks._changed, "nothing else is due"


def test_questions_about_unknown_or_unsaved_documents_have_answers(editor: Editor) -> None:
    """Nothing for a document never opened; the usual for one that has no file yet."""
    editor.start(None)
    assert editor.ask("hover", "file:///nowhere/x.wf", 3, 3) is None
    editor.open("untitled:Untitled-1", "workflow w { call plan if plan. }")
    assert editor.diagnostics("untitled:Untitled-1") != []

    assert editor.ask("completion", "untitled:Untitled-1", 0, 31)["items"] == []
    items = editor.ask("completion", "untitled:Untitled-1", 0, 26)["items"]
    assert [item["label"] for item in items] == ["plan"]
    assert editor.ask("hover", "untitled:Untitled-1", 900, 900) is None
    assert editor.leave() == 0


def test_an_editor_that_leaves_without_shutdown_gets_exit_code_1(editor: Editor) -> None:
    """As the protocol wants it; the same when its end of the pipe closes."""
    editor.start(None)

    assert editor.process.stdin is not None
    editor.process.stdin.close()

    assert editor.process.wait(PATIENCE_S) == 1


def test_links_lead_to_the_pages_of_the_source_tree() -> None:
    """Without `--docs-url`, when it runs from there; each diagnostic to a page that exists."""
    pages = _own_pages()

    assert pages is not None
    page = Path(pages.removeprefix("file://").replace("{code}", "WF301"))
    assert page.read_text(encoding="utf-8").startswith("# WF301")


def test_a_link_without_a_place_for_the_code_is_wrong_usage() -> None:
    """It would be the same for every diagnostic."""
    result = CliRunner().invoke(lsp, ["--docs-url", "https://docs.example/"])

    assert result.exit_code == 2
    assert "{code}" in result.stderr


def test_without_pygls_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, as for any wrong usage, and the extra's name."""
    for name in list(sys.modules):
        if name.startswith(("runkon_server.cli.lsp_server.", "pygls", "lsprotocol")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygls", None)
    monkeypatch.setitem(sys.modules, "lsprotocol", None)

    result = CliRunner().invoke(lsp, [])

    assert result.exit_code == 2
    assert "pip install 'runkon[lsp]'" in result.stderr
