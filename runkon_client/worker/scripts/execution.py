"""One program under way: its launcher, what it has written so far, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runkon_client.worker.scripts import launcher
from runkon_client.worker.scripts.capture import Capture
from runkon_client.worker.scripts.script import ScriptOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runkon_client.worker.scripts.script import ScriptLimits

_CHUNK_BYTES: Final = 1 << 16
_STDERR_KEPT_BYTES: Final = 16 << 10
_REPORT_KEPT_BYTES: Final = 4096
_LAUNCHER: Final = Path(launcher.__file__)
_DRAIN_S: Final = 2.0  # for the pipes to end, once nothing is left that could write to them

TIMED_OUT: Final = "SCRIPT_TIMEOUT"
NOT_STARTED: Final = "SCRIPT_START"
TOO_MUCH_OUTPUT: Final = "OUTPUT_LIMIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to be started, and how."""

    argv: Sequence[str]
    """The first is a path."""
    environment: Mapping[str, str]
    folder: Path
    resources: Mapping[str, int]
    """Of each process of it, by the names of Python's `resource`."""
    home: str = ""
    """A folder to be removed at its end; empty for none."""
    standard_input: bytes = b""


async def execute(
    program: Program, limits: ScriptLimits, *, timeout_s: float | None
) -> ScriptOutcome:
    """Run a program to its end, whatever that is; no process of it is left.

    Cancelling it ends the program with SIGTERM and, after the grace, SIGKILL; the cancellation
    goes on when every process of it is gone.
    """
    with contextlib.ExitStack() as stack:
        try:
            # A file and not a pipe: nobody has to write while others read.
            given = stack.enter_context(tempfile.TemporaryFile())
            given.write(program.standard_input)
            given.seek(0)
            reads, writes = _open_pipes(3)
        except OSError as error:
            return _not_started(error)
        stdout, stderr, report = writes
        stack.callback(_close, reads)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_LAUNCHER),
                stdin=asyncio.subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env={},
                start_new_session=True,
                pass_fds=(report, given.fileno()),
            )  # fmt: skip
        except OSError as error:
            return _not_started(error)
        finally:
            _close(writes)
        execution = _Execution(process, reads, limits)
        try:
            plan = _plan(program, limits, report=report, given=given.fileno())
            await execution.send_plan(plan)
            return await execution.follow(timeout_s)
        finally:
            await execution.close()


def _open_pipes(number: int) -> tuple[list[int], list[int]]:
    """The ends to read from and those to write to; all of them or, with the error, none."""
    reads: list[int] = []
    writes: list[int] = []
    try:
        for _ in range(number):
            read, write = os.pipe()
            reads.append(read)
            writes.append(write)
    except OSError:
        _close(reads + writes)
        raise
    return reads, writes


def _not_started(error: OSError) -> ScriptOutcome:
    return not_run(f"could not be started: {error.strerror}", NOT_STARTED, retryable=True)


def _plan(program: Program, limits: ScriptLimits, *, report: int, given: int) -> dict[str, object]:
    return {
        "argv": list(program.argv),
        "env": dict(program.environment),
        "cwd": str(program.folder),
        "home": program.home,
        "limits": dict(program.resources),
        "grace_s": limits.grace_s,
        "report": report,
        "stdin": given,
    }


class _Execution:
    """A launcher, and what its program has written so far.

    The launcher's report ends when the launcher does; the script's own pipes may be held open by
    whatever got away from it.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, reads: Sequence[int], limits: ScriptLimits
    ) -> None:
        assert process.stdin is not None
        self._process = process
        self._control = process.stdin
        self._limits = limits
        self._error = ""
        self._code = ""
        self._stdout = Capture(limits.kept_max_bytes)
        self._stderr = Capture(_STDERR_KEPT_BYTES)
        self._report = Capture(_REPORT_KEPT_BYTES)
        self._ended = {read: asyncio.Event() for read in reads}
        self._report_ended = self._ended[reads[-1]]
        self._loop = asyncio.get_running_loop()
        for read, capture in zip(reads, (self._stdout, self._stderr, self._report), strict=True):
            os.set_blocking(read, False)
            self._loop.add_reader(read, self._read, read, capture)

    async def send_plan(self, plan: Mapping[str, object]) -> None:
        """Hand the launcher what to do; it waits for nothing else."""
        self._control.write(json.dumps(plan).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._control.drain()

    async def follow(self, timeout_s: float | None) -> ScriptOutcome:
        """Wait for the end, and bring it about when the time is over or the caller is cancelled."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._report_ended.wait()
        except TimeoutError:
            self._fail(f"was ended after {timeout_s:g} s, its longest time", TIMED_OUT)
            await self._end()
        except asyncio.CancelledError:
            await self._end()
            raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*(ended.wait() for ended in self._ended.values()))
        return self._outcome()

    async def close(self) -> None:
        """Leave nothing behind, whatever went wrong before."""
        try:
            self._control.close()
            with contextlib.suppress(ConnectionError):
                await self._control.wait_closed()
            await self._process.wait()
        finally:
            for read in self._ended:
                self._loop.remove_reader(read)

    def _read(self, read: int, capture: Capture) -> None:
        chunk = os.read(read, _CHUNK_BYTES)
        if not chunk:
            self._loop.remove_reader(read)
            self._ended[read].set()
            return
        capture.add(chunk)
        if capture.total_bytes > self._limits.output_max_bytes:
            limit = self._limits.output_max_bytes
            self._fail(f"was ended for writing more than {limit} bytes", TOO_MUCH_OUTPUT)
            self._control.close()  # the end of its input tells the launcher to kill

    def _fail(self, error: str, code: str) -> None:
        if not self._error:
            self._error, self._code = error, code

    async def _end(self) -> None:
        """Ask the script to end, and see it dead; a second cancellation gives it no more time."""
        with contextlib.suppress(ConnectionError):
            self._control.write(b"T")
        try:
            await self._report_ended.wait()
        except asyncio.CancelledError:
            self._control.close()
            raise

    def _outcome(self) -> ScriptOutcome:
        told: dict[str, Any] = {}
        for line in self._report.text().splitlines():
            told |= json.loads(line)
        if "exit_code" not in told and "signal" not in told:
            self._fail(
                f"could not be run: {told.get('error', 'its launcher was killed')}", NOT_STARTED
            )
            if "pid" in told:
                # Nobody is left to answer for it: what has not left its session ends here.
                with contextlib.suppress(OSError):
                    os.killpg(told["pid"], signal.SIGKILL)
        return ScriptOutcome(
            stdout=self._stdout.text(),
            stderr=self._stderr.text(),
            exit_code=told.get("exit_code"),
            signal=told.get("signal"),
            duration_s=told.get("duration_s", 0.0),
            error=self._error,
            code=self._code,
            retryable=self._code != TOO_MUCH_OUTPUT,
        )


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def not_run(error: str, code: str, *, retryable: bool = False) -> ScriptOutcome:
    """How it ended before it began."""
    return ScriptOutcome(
        stdout="", stderr="", exit_code=None, error=error, code=code, retryable=retryable
    )
