"""The processes of the rig: started, signalled by their own handle, always ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG: Final = 1
_END_S: Final = 60.0


class RigProcess:
    """A program that can be started again and again under one name.

    Args:
        name: its own in the rig.
        argv: program and arguments.
        environment: what it sees; nothing is inherited.
        log: takes standard output and standard error of all its lives.
        takes_orders: whether words can be sent to its standard input.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        takes_orders: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self.is_frozen = False
        self.log_start = 0
        """Where in the log its present life begins."""
        self._argv = [*argv]
        self._environment = {**environment}
        self._takes_orders = takes_orders
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.is_alive:
            return
        self._close_stdin()
        self.is_frozen = False
        with self.log.open("ab") as output:
            self.log_start = output.tell()
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE if self._takes_orders else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the rig, which then ends all in order
                # Nothing is left behind by a rig that is killed; only one thread starts processes.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    def send(self, number: signal.Signals) -> None:
        """Signal it; nothing happens if it has ended."""
        if self._process is not None and self.is_alive:
            self._process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.is_frozen = True
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, if it is frozen."""
        if self.is_frozen:
            self.is_frozen = False
            self.send(signal.SIGCONT)

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        if self._process is not None and self.is_alive:
            self._process.kill()
            self._process.wait(_END_S)

    def order(self, word: str) -> None:
        """Say a word to it; one that has ended does not hear it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(word.encode() + b"\n")
                self._process.stdin.flush()

    def end(self, number: signal.Signals = signal.SIGTERM, within_s: float = _END_S) -> int | None:
        """End it in good order, or else by force; its exit code, None if it had to be killed."""
        if self._process is None:
            return 0
        self.thaw()
        self._close_stdin()
        if not self._takes_orders:
            self.send(number)
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def inherited_environment() -> dict[str, str]:
    """What children see of our environment: nothing that would configure Runkon or libpq."""
    return {
        name: text for name, text in os.environ.items() if not name.startswith(("RUNKON_", "PG"))
    }


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
