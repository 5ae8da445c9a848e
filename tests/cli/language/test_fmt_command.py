"""`runkon fmt`: files are written whole or not at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from support.wf_files import runkon

if TYPE_CHECKING:
    from pathlib import Path

UGLY = "workflow w { call a }"
NEAT = "workflow w {\n  call a\n}\n"
BROKEN = "workflow w { call 3x }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test, with a file of each kind."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("ugly", UGLY), ("neat", NEAT)):
        tmp_path.joinpath(f"{name}.wf").write_text(text)
    return tmp_path


def test_files_are_formatted_in_place_and_named(folder: Path) -> None:
    """Those that are in order already are neither named nor touched."""
    before = folder.joinpath("neat.wf").stat()

    assert runkon("fmt") == (0, "ugly.wf\n", "")
    assert folder.joinpath("ugly.wf").read_text() == NEAT
    assert folder.joinpath("neat.wf").stat() == before
    assert runkon("fmt") == (0, "", "")


def test_the_mode_of_a_file_is_kept_and_no_draft_is_left(folder: Path) -> None:
    folder.joinpath("ugly.wf").chmod(0o640)
    runkon("fmt", "ugly.wf")

    assert stat.S_IMODE(folder.joinpath("ugly.wf").stat().st_mode) == 0o640
    assert {path.name for path in folder.iterdir()} == {"neat.wf", "ugly.wf"}


def test_a_link_stays_a_link(folder: Path) -> None:
    folder.joinpath("link.wf").symlink_to("ugly.wf")
    runkon("fmt", "link.wf")

    assert folder.joinpath("link.wf").is_symlink()
    assert folder.joinpath("ugly.wf").read_text() == NEAT


def test_check_names_what_would_change_and_writes_nothing(folder: Path) -> None:
    assert runkon("fmt", "--check") == (1, "ugly.wf\n", "")
    assert folder.joinpath("ugly.wf").read_text() == UGLY
    assert runkon("fmt", "--check", "neat.wf") == (0, "", "")


def test_diff_shows_what_would_change_and_writes_nothing(folder: Path) -> None:
    """In the form that `patch` reads."""
    difference = (
        "--- ugly.wf\n"
        "+++ ugly.wf\n"
        "@@ -1 +1,3 @@\n"
        "-workflow w { call a }\n"
        "\\ No newline at end of file\n"
        "+workflow w {\n"
        "+  call a\n"
        "+}\n"
    )

    assert runkon("fmt", "--diff") == (1, difference, "")
    assert folder.joinpath("ugly.wf").read_text() == UGLY
    assert runkon("fmt", "--diff", "--check").out.startswith("ugly.wf\n--- ugly.wf\n")


def test_lines_of_a_difference_end_where_those_of_the_language_do(folder: Path) -> None:
    """A string may hold any other line separator."""
    folder.joinpath("ugly.wf").write_text('workflow w {\ncall a { as = "x\u2028y" }\n}\n')

    assert '\n-call a { as = "x\u2028y" }\n' in runkon("fmt", "--diff", "ugly.wf").out


def test_standard_input_goes_to_standard_output() -> None:
    assert runkon("fmt", "-", text=UGLY) == (0, NEAT, "")
    assert runkon("fmt", "-", text=NEAT) == (0, NEAT, "")
    assert runkon("fmt", "-", "--check", text=UGLY) == (1, "<stdin>\n", "")
    assert runkon("fmt", "-", "--check", text=NEAT) == (0, "", "")


def test_a_file_with_errors_is_left_alone_and_the_others_are_not(folder: Path) -> None:
    folder.joinpath("broken.wf").write_text(BROKEN)
    answer = runkon("fmt")

    assert answer.code == 1
    assert answer.out == "ugly.wf\n"
    assert answer.err.startswith("broken.wf:1:19: error WF201")
    assert folder.joinpath("broken.wf").read_text() == BROKEN


def test_what_cannot_be_read_ends_with_2(folder: Path) -> None:
    answer = runkon("fmt", "gone.wf", "ugly.wf")

    assert (answer.code, answer.out) == (2, "ugly.wf\n")
    assert answer.err == "error: gone.wf: No such file or directory\n"


def test_what_cannot_be_written_ends_with_2_and_stays_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of it."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    answer = runkon("fmt", "ugly.wf")

    assert answer.code == 2
    assert answer.err == "error: ugly.wf: cannot be written: No space left on device\n"
    assert folder.joinpath("ugly.wf").read_text() == UGLY
    assert {path.name for path in folder.iterdir()} == {"neat.wf", "ugly.wf"}


def test_a_folder_without_workflows_is_in_order(folder: Path) -> None:
    folder.joinpath("empty").mkdir()

    assert runkon("fmt", "empty") == (0, "", "no workflow files found\n")
