"""The processes of an embedded PostgreSQL: the guarded server, and one that lost its guard."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from runkon_server.store import embedded_guard
from runkon_server.store.embedded_binaries import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_READY_S = 120  # crash recovery may take long; while the server lives, it is waited for
_ORPHAN_S = 60
_PAUSE_S = 0.02


class TryAgainError(Exception):
    """The server ended because of something that passes: a port just taken, memory not yet free."""


_PASSING = ("Address already in use", "pre-existing shared memory", "could not create any TCP/IP")


@dataclass(frozen=True, slots=True)
class Account:
    """The user a program runs as; negative ids mean the present one."""

    uid: int = -1
    gid: int = -1

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid)

    def run(self, *command: str | Path) -> None:
        """Run a program to its end.

        Raises:
            EmbeddedPostgresError: it failed; the text has the end of what it said.
        """
        with tempfile.TemporaryFile() as output:  # descendants that keep a pipe would hang us
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment(),
                check=False,
                user=self.uid if self.uid >= 0 else None,
                group=self.gid if self.uid >= 0 else None,
                extra_groups=[] if self.uid >= 0 else None,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        if done.returncode != 0:
            raise EmbeddedPostgresError(f"{command[0]} failed:\n{said[-2000:].strip()}")


def environment() -> dict[str, str]:
    """What the server may see of our environment: no secrets, and no PG* setting of the user's."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


class GuardedServer:
    """One run of `postgres` under a guard that ends it when this process ends.

    Args:
        bindir: the folder of the programs.
        data: the cluster.
        log: takes everything the server says.
        options: settings by name.
        account: the user to run as.
    """

    def __init__(
        self, bindir: Path, data: Path, log: Path, options: Mapping[str, str], account: Account
    ) -> None:
        self._data, self._log = data, log
        settings = [part for item in options.items() for part in ("-c", "=".join(item))]
        theirs, self._pipe = os.pipe()
        try:
            with log.open("ab") as output:
                self._log_start = output.tell()
                self._guard = subprocess.Popen(
                    [
                        *(sys.executable, "-I", embedded_guard.__file__),
                        *(str(theirs), str(account.uid), str(account.gid)),
                        *(str(bindir / "postgres"), "-D", str(data), *settings),
                    ],
                    pass_fds=(theirs,),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=environment(),
                    start_new_session=True,  # Ctrl-C is for the owner, who then stops us in order
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)

    def await_ready(self, dsn: str) -> None:
        """Return as soon as the server of our cluster answers under `dsn`.

        Raises:
            TryAgainError: it ended for a reason that passes.
            EmbeddedPostgresError: it ended for another, or does not answer.
        """
        deadline = time.monotonic() + _READY_S
        while not self._answers(dsn):
            if self._guard.poll() is not None:
                said = self._said()
                kind = TryAgainError if any(map(said.count, _PASSING)) else EmbeddedPostgresError
                raise kind(f"PostgreSQL does not start:\n{said}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"no answer in {_READY_S} s:\n{self._said()}")
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """Shut down in order, and return when the server has ended; once only."""
        os.close(self._pipe)
        self._guard.wait()

    def _answers(self, dsn: str) -> bool:
        """Whether *our* server answers: another one may have taken the port."""
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(dsn, connect_timeout=2) as connection,
        ):
            return connection.execute("SHOW data_directory").fetchone() == (str(self._data),)
        return False

    def _said(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()[-2000:].decode(errors="replace").strip()


def stop_orphan(data: Path) -> None:
    """End the server that a killed guard left at work in `data`, or remove its stale pidfile.

    To be called by the holder of the folder's lock. A pidfile is a number that may by now belong
    to anything: nothing is signalled but a postgres at work in this folder.

    Raises:
        EmbeddedPostgresError: the orphan does not end.
    """
    pidfile = data / "postmaster.pid"
    try:
        pid = int(pidfile.read_text(encoding="utf-8").split(maxsplit=1)[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    with _opened(pid) as process:
        if _serves(pid, data):
            _interrupt(pid, process)
    deadline = time.monotonic() + _ORPHAN_S
    while _serves(pid, data):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"process {pid}, left over in {data}, does not stop")
        time.sleep(_PAUSE_S)
    pidfile.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    """A handle that keeps meaning this process when its number is given to another; Linux only."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # no such process, no such system call, or a number that is none
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _interrupt(pid: int, process: int | None) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process is None:
            os.kill(pid, signal.SIGINT)
        else:
            signal.pidfd_send_signal(process, signal.SIGINT)


def _serves(pid: int, data: Path) -> bool:
    """Whether the process is a PostgreSQL server at work in this very folder."""
    if pid <= 1:
        return False
    entry = Path("/proc", str(pid))
    if not entry.parent.joinpath("self").exists():
        return _serves_by_ps(pid, data)
    try:
        program = entry.joinpath("cmdline").read_bytes().partition(b"\0")[0]
        return program.endswith(b"/postgres") and entry.joinpath("cwd").samefile(data)
    except OSError:  # gone, a zombie, or another user's
        return False


def _serves_by_ps(pid: int, data: Path) -> bool:
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return bool(shown) and shown[0].endswith("/postgres") and str(data) in " ".join(shown)
