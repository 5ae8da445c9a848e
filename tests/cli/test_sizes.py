"""A source that no server takes is refused here, in the words of `runkon check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from runkon_client.errors import InvalidArgumentError
from runkon_client.sizes import SOURCE_BYTES, refuse_too_large, too_large
from runkon_server.dsl import limits
from runkon_server.dsl.parser import parse
from support.fake_server import FakeServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

HUGE = "workflow w { call a }\n" + "// no message to a server holds this\n" * 150_000


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    file = tmp_path / "huge.wf"
    file.write_text(HUGE)
    return file


def invoke(server: FakeServer, *words: str) -> Result:
    return CliRunner().invoke(main, ["--address", server.address, *words])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run",), Exit.REFUSED),
        (("workflows", "put"), Exit.FAILED),
        (("workflows", "validate"), Exit.FAILED),
        (("workflows", "format"), Exit.FAILED),
        (("workflows", "graph"), Exit.REFUSED),
    ],
)
def test_a_source_beyond_any_message_is_shown_with_wf402(
    server: FakeServer, huge: Path, words: tuple[str, ...], code: Exit
) -> None:
    """As `runkon check` shows it, with the exit code of any other refusal; nothing is sent."""
    answer = invoke(server, *words, str(huge))

    assert answer.exit_code == code
    assert answer.output.splitlines() == [
        f"{huge}:1:1: error WF402: the source is larger than 256 KiB",
        "    1 | workflow w { call a }",
        "      | ^",
        "hint: move parts of it into workflows of their own and use `call workflow`",
    ]
    assert not server.requests


@pytest.mark.parametrize("words", [("run",), ("workflows", "put")])
def test_programs_are_told_as_by_a_server(
    server: FakeServer, huge: Path, words: tuple[str, ...]
) -> None:
    answer = invoke(server, "--json", *words, str(huge))

    error = json.loads(answer.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "DSL_LIMIT")
    assert error["violations"][0]["field"] == "source:1:1"
    assert not server.requests


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_limit_and_the_words_are_those_of_the_language(letter: str) -> None:
    """At the last byte that is taken and at the first that is not."""
    fill = (SOURCE_BYTES - 3) // len(letter.encode())
    fits = ("// " + letter * fill).ljust(SOURCE_BYTES - fill * (len(letter.encode()) - 1))

    assert SOURCE_BYTES == limits.SOURCE_BYTES == len(fits.encode())
    assert too_large(fits) is None
    refuse_too_large(fits)
    ours, (theirs,) = too_large(fits + "x"), parse(fits + "x", "w.wf").diagnostics
    assert ours is not None
    assert (ours.code, ours.message, ours.hint) == (theirs.code, theirs.message, theirs.hint)
    assert (ours.line, ours.column) == (theirs.span.line, theirs.span.column)
    with pytest.raises(InvalidArgumentError, match="WF402"):
        refuse_too_large(fits + "x")
