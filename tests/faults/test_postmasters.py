"""The tests' own servers leave nothing behind, however the tests end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.postmasters import IMMEDIATE, running
from support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

OWNER = """
import sys, time
from pathlib import Path
from support.postmasters import running
with running(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 - of the kernel
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_ends_with_a_test_process_that_was_killed(session_folder: Path) -> None:
    """With kill -9, which leaves nobody to stop it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(session_folder / "owned")],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)
        owner.kill()

    wait_until(lambda: not is_alive(pid), "the server ends with its owner")


def test_a_server_that_is_started_again_keeps_running(
    session_folder: Path,
) -> None:
    """Each life has a watcher of its own, which is told when it is over."""
    with running(session_folder / "twice") as server:
        server.execute("CREATE DATABASE kept")
        server.restart(IMMEDIATE)
        server.execute("DROP DATABASE kept")
        assert server.is_running
