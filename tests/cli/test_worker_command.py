"""`runkon worker` as a process: what it says, and that it ends when it is told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
WORKER: Final = ROOT / "examples/workers/any_action.py"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_without_a_server_waits_until_it_is_stopped(number: signal.Signals) -> None:
    """Exit code 0: being stopped is how a worker ends."""
    words = ["worker", str(WORKER), "--address", "127.0.0.1:1", "--id", "w-1", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "runkon_client.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()

    assert about == {"worker_id": "w-1", "address": "127.0.0.1:1", "actions": ["*"]}
    assert process.returncode == 0, errors
