"""`runkon-server` as a process: started, awaited by what it says, always ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from support.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAM = (sys.executable, "-m", "runkon_server.cli")


class ServerProcess:
    """A running `runkon-server`, its log and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.printed: list[str] = []
        self.said: list[str] = []
        """Lines of standard error that are no log records."""
        self._readers = [
            threading.Thread(target=self._read_log, daemon=True),
            threading.Thread(target=self._read_printed, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.said.append(line.rstrip())

    def _read_printed(self) -> None:
        assert self.process.stdout is not None
        self.printed.extend(line.rstrip() for line in self.process.stdout)

    def records(self, event: str) -> list[dict[str, Any]]:
        """The log's records of this event."""
        return [record for record in self.log if record["event"] == event]

    def started(self, within_s: float = PATIENCE_S) -> str:
        """Wait until it serves; the address of its first listener."""
        wait_until(
            lambda: self.records("server.started") or self._has_told_all(),
            "the server starts or ends",
            within_s=within_s,
        )
        assert self.records("server.started"), (self.said, self.log)
        address: str = self.records("server.started")[0]["listen"][0]
        return address

    def _has_told_all(self) -> bool:
        """Whether it has ended and everything it said was read, which takes a moment longer."""
        is_read = not any(reader.is_alive() for reader in self._readers)
        return is_read and self.process.poll() is not None

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = PATIENCE_S) -> int:
        """Signal it and wait for its end; its exit code."""
        self.process.send_signal(number)
        return self.ended(within_s)

    def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(within_s)
        return code


@contextlib.contextmanager
def runkon_server(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run `runkon-server` with these arguments as long as the context lasts."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RUNKON_")}
    for name in ("RUNKON_PG_BINDIR",):
        if name in os.environ:
            inherited[name] = os.environ[name]
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=inherited | dict(environment or {}),
    )
    try:
        yield ServerProcess(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
