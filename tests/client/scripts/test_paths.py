"""Which texts may run, and which file they come to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_client.worker.scripts.paths import ScriptPathError, check_script

if TYPE_CHECKING:
    from pathlib import Path

    from client.scripts.runners import Run


@pytest.fixture
def tree(folder: Path) -> Path:
    """A folder with a script, one that is none, and links that lead in and out."""
    folder.joinpath("ci").mkdir()
    for path in (folder / "ci/build.sh", folder / "top.sh", folder.parent / "outside.sh"):
        path.write_text("#!/bin/sh\necho $0 $*\n", encoding="utf-8")
        path.chmod(0o755)
    folder.joinpath("ci/notes").write_text("no program", encoding="utf-8")
    folder.joinpath("ci/inside").symlink_to(folder / "top.sh")
    folder.joinpath("ci/out").symlink_to(folder.parent / "outside.sh")
    folder.joinpath("up").symlink_to(folder.parent)
    folder.joinpath("loop").symlink_to(folder / "loop")
    return folder


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("ci/build.sh", "./ci/build.sh"),
        ("./ci/build.sh --fast 'x y'", "./ci/build.sh --fast 'x y'"),
        ("  top.sh; echo done", "  ./top.sh; echo done"),
        ("ci/inside", "./top.sh"),
        ('ci/build.sh "$RUNKON_V1"', './ci/build.sh "$RUNKON_V1"'),
        ("ci/build.sh|cat", "./ci/build.sh|cat"),
        ("echo hello", "echo hello"),
        ("X=1 make", "X=1 make"),
        ('"$TOOL" x', '"$TOOL" x'),
        ("if true; then echo; fi", "if true; then echo; fi"),
        ("(cd ci; ls)", "(cd ci; ls)"),
        ("python3 -m http.server", "python3 -m http.server"),
    ],
)
def test_the_file_that_was_checked_is_the_one_that_runs(tree: Path, text: str, runs: str) -> None:
    """Only the first word is looked at, and only if it names a file; the rest is the shell's."""
    assert check_script(text, tree) == runs


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/bin/sh -c id", "absolute"),
        ("//bin/sh", "absolute"),
        ("../outside.sh", r"\.\."),
        ("ci/../../outside.sh", r"\.\."),
        ("ci/../top.sh", r"\.\."),
        ("ci/out", "leads out"),
        ("up/outside.sh", "leads out"),
        ("ci/missing.sh", "No such file"),
        ("CI/build.sh", "No such file"),
        ("ci/notes", "not executable"),
        ("./ci", "regular file"),
        ("./loop", "."),
        ("ci/build.sh\0", "nothing to run"),
        ("", "nothing to run"),
        ("  \n ", "nothing to run"),
    ],
)
def test_37_a_path_that_is_no_script_is_refused(tree: Path, text: str, reason: str) -> None:
    """Bad input 37: absolute, upwards, by symlink, no file, not executable, NUL, other case."""
    with pytest.raises(ScriptPathError, match=reason):
        check_script(text, tree)


async def test_a_script_file_runs_with_its_arguments(run: Run, tree: Path) -> None:
    """In the folder of scripts, in every sandbox."""
    outcome = await run('ci/build.sh one "$RUNKON_V"', environment={"RUNKON_V": "two  three"})

    assert outcome.stdout == "./ci/build.sh one two three\n", outcome.stderr


async def test_a_refused_script_is_not_started_and_not_retried(run: Run, tree: Path) -> None:
    """The failure says what is wrong with it."""
    outcome = await run("../outside.sh")

    assert (outcome.code, outcome.retryable, outcome.exit_code) == ("SCRIPT_REFUSED", False, None)
    assert "`..` is not allowed" in outcome.failure_text("script s")
