"""The guided tour, as a newcomer starts it: a process that starts its own server and worker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DEMO_LIMIT_S: Final = 240

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="the demo works with git"),
    pytest.mark.timeout(2 * DEMO_LIMIT_S + 30),
]


def demo_command(data_dir: Path, *options: str) -> list[str]:
    words = ["-m", "runkon_client.cli", "demo", "--data-dir", str(data_dir), *options]
    return [sys.executable, *words]


def environment() -> dict[str, str]:
    """Nobody's settings but the tests'."""
    own = {key: text for key, text in os.environ.items() if not key.startswith("RUNKON_")}
    return own | {key: os.environ[key] for key in ["RUNKON_PG_BINDIR"] if key in os.environ}


def run_demo(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        demo_command(data_dir, *options),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_LIMIT_S,
        check=False,
    )


@pytest.fixture
def running_demo(open_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in the background; whatever it started is stopped with it."""
    process = subprocess.Popen(
        demo_command(open_folder / "data", "--yes"),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        family = [process_of(process.pid), *descendants(process.pid)]
        for each in family:
            if each is not None and each.is_running():
                each.kill()
        process.communicate()


def process_of(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def descendants(pid: int) -> list[psutil.Process]:
    process = process_of(pid)
    return [] if process is None else process.children(recursive=True)


def test_the_demo_completes_its_run_and_shows_the_commits(open_folder: Path) -> None:
    """Every part of the cycle is seen: a retry, findings and their end, the gate, the merge."""
    done = run_demo(open_folder / "data", "--yes")

    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        r"implement failed .*",
        r"implement will be tried again in",
        r"implement started, attempt 2",
        r"review-correctness completed .*\[has_findings\]",
        r"review-security skipped",
        r"review-correctness \(pass 2\) completed .*approved",
        r"gate code-review waits",
        r"gate code-review approved by .* with merge",
        r"notify completed",
        r"run completed",
        r"Merge ticket/",
    ):
        assert re.search(told, done.stdout), f"{told} is missing in:\n{done.stdout}"


def test_a_second_demo_finds_its_data_again(open_folder: Path) -> None:
    """The workflow is stored already: the same version is there, not a second one."""
    first = run_demo(open_folder / "data", "--yes")
    second = run_demo(open_folder / "data", "--yes")

    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    assert "version 1:" in second.stdout


def test_the_demo_takes_its_processes_along(running_demo: subprocess.Popen[str]) -> None:
    """SIGTERM in mid-run: server, database and worker are gone when the demo is."""
    assert running_demo.stdout is not None
    for line in running_demo.stdout:
        if "started run" in line:
            break
    started = descendants(running_demo.pid)
    running_demo.send_signal(signal.SIGTERM)
    code = running_demo.wait(60)

    assert code == 128 + signal.SIGTERM
    assert len(started) >= 3
    wait_until(lambda: not any(each.is_running() for each in started), "all children gone")


def test_without_a_terminal_the_demo_wants_yes(open_folder: Path) -> None:
    """Nobody could answer its gate; nothing is started."""
    done = run_demo(open_folder / "data")

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not open_folder.joinpath("data").exists()
