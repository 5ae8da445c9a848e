"""Child processes of the demo: started, awaited until they are ready, always stopped."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_STOP_S: Final = 15.0
_LOG_LINES: Final = 15
_PAUSE_S: Final = 0.05


class ChildFailedError(Exception):
    """A child ended, or was not ready in time; the text holds the end of its log."""


class Child:
    """One process: lines of its standard output, and a log file with its standard error."""

    def __init__(self, process: subprocess.Popen[str], name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._is_stopping = False
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stdout: IO[str]) -> None:
        # Read to the end, whoever still listens: a full pipe would stop the child.
        with stdout:
            for line in stdout:
                self._lines.put(line.rstrip("\n"))

    def wait_for_match(self, wanted: re.Pattern[str], *, within_s: float) -> re.Match[str]:
        """The first line of standard output that matches from its beginning.

        Raises:
            ChildFailedError: there was none before the process ended or the time was over.
        """
        deadline = time.monotonic() + within_s
        while True:
            has_ended = self._process.poll() is not None
            with contextlib.suppress(queue.Empty):
                if found := wanted.match(self._lines.get(timeout=_PAUSE_S)):
                    return found
                continue
            if has_ended:
                raise ChildFailedError(f"the {self._name} ended early:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ChildFailedError(
                    f"the {self._name} was not ready in {within_s:.0f} s:\n{self.log_tail()}"
                )

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Interrupt the block if the process ends meanwhile: it would wait for ever.

        Raises:
            ChildFailedError: the process has ended.
        """
        threading.Thread(target=self._interrupt_at_end, daemon=True).start()
        try:
            yield
        except KeyboardInterrupt:
            if self._process.poll() is None:
                raise
            raise ChildFailedError(f"the {self._name} ended early:\n{self.log_tail()}") from None

    def _interrupt_at_end(self) -> None:
        self._process.wait()
        if not self._is_stopping:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)

    def log_tail(self) -> str:
        """The last lines of the log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self._is_stopping = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def child(name: str, module: str, arguments: Sequence[str], folder: Path) -> Iterator[Child]:
    """Run `python -m MODULE ARGUMENTS` until the block is left.

    Args:
        name: for messages.
        module: what to run, with this very interpreter.
        arguments: of the module.
        folder: where its log goes, as `NAME.log`.
    """
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C is for the demo alone, which then stops its children in the right order.
            process_group=0,
        )
    started = Child(process, name, log)
    try:
        yield started
    finally:
        started.stop()
