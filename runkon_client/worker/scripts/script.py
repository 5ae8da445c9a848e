"""Scripts, their limits and what became of them."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_STDERR_CHARS: Final = 2000  # of the error text, as the language promises


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script as the definition has it: values come by the environment, never in the text."""

    name: str
    text: str
    """For `sh -c`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    identity: str = ""
    """Whom it acts as, by the definition's `as`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptLimits:
    """What one script may use. Memory, files and their sizes are limits of each process of it."""

    kept_max_bytes: int = (1 << 20) - (4 << 10)
    """Of standard output; more is cut in its middle. A step's texts are 1 MiB together."""
    output_max_bytes: int = 16 << 20
    """A script that writes more is killed."""
    memory_max_bytes: int = 2 << 30
    """Writable memory of its own (RLIMIT_DATA)."""
    file_max_bytes: int = 1 << 30
    open_files_max: int = 1024
    processes_max: int = 512
    """Only in a sandbox, and not if the worker runs as root, whom the system does not count."""
    grace_s: float = 5.0
    """From SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptOutcome:
    """How a script ended, whichever way."""

    stdout: str
    stderr: str
    exit_code: int | None
    """None if a signal ended it, or if it was never started."""
    signal: int | None = None
    duration_s: float = 0.0
    error: str = ""
    """Why it could not be started, or why the worker ended it; empty if it ended by itself."""
    code: str = ""
    """Stable word for `error`: SCRIPT_TIMEOUT, SCRIPT_REFUSED, SCRIPT_START, OUTPUT_LIMIT."""
    retryable: bool = True
    left_out: tuple[str, ...] = ()
    """Variables whose values were too large for its environment."""

    @property
    def is_success(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.error

    @property
    def how(self) -> str:
        """How it ended, for people: what follows its name in a sentence."""
        if self.error:
            how = self.error
        elif self.signal is not None:
            how = f"was ended by {_signal_name(self.signal)}"
        else:
            how = f"ended with exit code {self.exit_code}"
        if self.left_out:
            how += f" (too large for its environment, and not in it: {', '.join(self.left_out)})"
        return how

    def failure_text(self, what: str) -> str:
        """One paragraph for people: what happened to it, and the end of standard error."""
        stderr = self.stderr.strip()
        if len(stderr) > _STDERR_CHARS:
            stderr = f"…{stderr[1 - _STDERR_CHARS :]}"
        return f"{what} {self.how}" + (f": {stderr}" if stderr else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
