"""`runkon worker` as a process beside a replica."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextlib.contextmanager
def worker_command(
    address: str,
    namespace: str,
    *words: str,
    is_killed: bool = False,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A worker of a namespace; at the end it drains, unless the test kills it."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "runkon_client.cli", "worker", *words,
            "--address", address, "--namespace", namespace, "--principal", "machine",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        cwd=folder,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("worker ")
        yield process
        process.terminate()
        assert process.wait(60) == (-signal.SIGKILL if is_killed else 0)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
