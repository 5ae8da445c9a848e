"""dev.py and what it stands on: the tasks it offers, and environments made from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

import dev as runner
from tools import environments

ROOT: Final = Path(__file__).resolve().parents[2]
WHEEL: Final = "sample-1.0-py3-none-any.whl"


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dev.py in the environment the tests run in, from another folder."""
    return subprocess.run(
        [sys.executable, ROOT / "dev.py", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "RUNKON_VENV": sys.prefix},
        check=False,
    )


def make_wheel(wheel: Path, content: str) -> None:
    """A wheel of one module, `sample`, that needs no index and no build."""
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sample.py", content)
        about = "sample-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", f"sample.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n")


def value_in(python: Path) -> str:
    shown = subprocess.run(
        [python, "-c", "import sample; print(sample.value)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


def test_without_a_task_the_tasks_are_listed() -> None:
    """No argument and an unknown one: usage on stderr and a code that fails scripts."""
    for arguments in ([], ["deploy"]):
        done = dev(*arguments)

        assert done.returncode == 2
        for task in ("demo", "test", "check", "gen", "bench", "fuzz", "mutants", "chaos"):
            assert f"\n  {task} " in done.stderr


@pytest.mark.parametrize(
    ("task", "folder"),
    [("bench", "benchmarks"), ("fuzz", "tests/fuzz"), ("mutants", "tests/mutants")],
)
def test_a_task_with_programs_lists_them_when_it_knows_no_such_name(task: str, folder: str) -> None:
    """Each by its file and its first line; without a name too, but `mutants` then runs them all."""
    unknown = dev(task, "no_such")
    listed = unknown if task == "mutants" else dev(task)
    programs = [path.stem for path in ROOT.glob(f"{folder}/[!_]*.py")]

    assert programs
    for name in programs:
        assert f"\n  {name} " in listed.stderr
    assert (listed.returncode, unknown.returncode) == (2 if task == "mutants" else 0, 2)


def test_unknown_postgres_is_refused() -> None:
    """`test --postgres` takes two names; a third does not silently mean the default."""
    done = dev("test", "--postgres", "oracle")

    assert done.returncode == 1
    assert "`embedded` or `system`" in done.stderr


def test_environment_is_made_once_and_filled_anew_on_change(tmp_path: Path) -> None:
    """One environment, made of nothing, through all it meets (making one takes seconds).

    A failed installation leaves no mark; the same fingerprint needs nothing; another fills it anew.
    """
    venv, wheel = tmp_path / "venv", tmp_path / WHEEL
    requirements = ["--no-index", "--force-reinstall", str(wheel)]
    with pytest.raises(environments.EnvironmentNotMadeError, match="failed, see above"):
        environments.ensure(venv, "sample", "first", requirements)

    make_wheel(wheel, "value = 1")
    python = environments.ensure(venv, "sample", "first", requirements)
    assert value_in(python) == "1"

    wheel.unlink()
    environments.ensure(venv, "sample", "first", requirements)
    assert value_in(python) == "1"

    make_wheel(wheel, "value = 2")
    environments.ensure(venv, "sample", "second", requirements)
    assert value_in(python) == "2"


@pytest.mark.parametrize(
    ("arguments", "is_spread"),
    [([], True), (["tests/store", "-x"], True), (["-n0"], False), (["-n", "4"], False),
     (["-s"], False), (["--pdb"], False)],
)  # fmt: skip
def test_tests_use_all_processors_unless_told_otherwise(
    arguments: list[str],
    is_spread: bool,  # noqa: FBT001 - a case
) -> None:
    assert bool(runner.spread(arguments)) is is_spread


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    """RUNKON_VENV may name a home folder by mistake: making an environment empties its place."""
    letter = tmp_path / "letter.txt"
    letter.write_text("dear", encoding="utf-8")

    with pytest.raises(environments.EnvironmentNotMadeError, match="is no environment"):
        environments.ensure(tmp_path, "sample", "first", [])

    assert letter.read_text(encoding="utf-8") == "dear"


def test_an_environment_whose_python_is_gone_counts_as_not_installed(tmp_path: Path) -> None:
    """An upgrade of the distribution took away what its link points to."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".installed-dev").write_text("fingerprint", encoding="utf-8")
    environments.python_of(tmp_path).symlink_to(sys.executable)
    assert environments.has(tmp_path, "dev", "fingerprint")

    environments.python_of(tmp_path).unlink()
    environments.python_of(tmp_path).symlink_to("/usr/bin/python-that-was-removed")

    assert not environments.has(tmp_path, "dev", "fingerprint")


def test_a_link_that_leads_nowhere_is_named_not_followed(tmp_path: Path) -> None:
    """Left where the environment shall be: said so in a line, and it is still there afterwards."""
    venv = tmp_path / "venv"
    venv.symlink_to(venv)

    with pytest.raises(environments.EnvironmentNotMadeError, match="remove the link"):
        environments.ensure(venv, "sample", "first", [])

    assert venv.is_symlink()
