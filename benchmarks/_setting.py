"""What benchmarks run on: a durable PostgreSQL, a server and helpers as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import psycopg
import psycopg.sql

from runkon_server.store.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_S: Final = 30.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Server:
    """A running `runkon-server serve`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.address = ""
        self.complaints: list[str] = []
        """Warnings and errors of its log: the first few are worth a look when figures surprise."""
        self.is_started = threading.Event()
        """Also set when it has ended without ever having started; then it has no address."""
        self._metrics_port = 0

    def read_log(self, log: IO[str]) -> None:
        """Follow its log to the end."""
        with log:
            for line in log:
                record: dict[str, Any] = (
                    json.loads(line) if line.startswith("{") else {"event": line}
                )
                if record.get("level") != "info":
                    self.complaints.append(line.rstrip())
                if record["event"] == "metrics.started":
                    self._metrics_port = record["port"]
                if record["event"] == "server.started":
                    self.address = record["listen"][0]
                    self.is_started.set()
        self.is_started.set()

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name with labels."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


@contextlib.contextmanager
def database(url: str | None, **changes: str) -> Iterator[str]:
    """The URL of a database: the given one, or that of a server of our own.

    Ours is durable, with PostgreSQL's default settings but for `changes`, in a temporary folder.
    """
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="runkon-bench-") as folder:
        root = Path(folder) / "postgres"
        root.parent.chmod(0o711)  # root's server runs as another user
        if changes:  # some take effect with the next start only
            with EmbeddedPostgres(root) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
                for name, value in changes.items():
                    change = psycopg.sql.SQL("ALTER SYSTEM SET {} = {}")
                    conn.execute(change.format(psycopg.sql.Identifier(name), value))
        with EmbeddedPostgres(root) as dsn:
            yield dsn


@contextlib.contextmanager
def server(dsn: str) -> Iterator[Server]:
    """`runkon-server serve` on any free port, until the end of the context."""
    command = [sys.executable, "-m", "runkon_server.cli", "serve", "--migrate"]
    command += ["--listen", "127.0.0.1:0", "--metrics-port", "0"]
    environment = {name: text for name, text in os.environ.items() if name[:7] != "RUNKON_"}
    environment["RUNKON_DATABASE_URL"] = dsn
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    running = Server(process.pid)
    reader = threading.Thread(target=running.read_log, args=(process.stderr,))
    reader.start()
    try:
        if not running.is_started.wait(START_S) or not running.address:
            raise SystemExit("the server did not start:\n" + "\n".join(running.complaints))
        yield running
    finally:
        process.terminate()
        process.wait()
        reader.join()


@contextlib.contextmanager
def process(
    module: str, *arguments: str, is_told_when_to_end: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A module of this package as a process; ended with the context.

    Args:
        is_told_when_to_end: by the end of its standard input.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    stdin = subprocess.PIPE if is_told_when_to_end else None
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.terminate()


def await_line(running: subprocess.Popen[str], wanted: str | None = None) -> str:
    """The next line that a process prints.

    Raises:
        SystemExit: it ended instead, or printed another; why is on standard error already.
    """
    assert running.stdout is not None
    line = running.stdout.readline().rstrip()
    if not line or line != (wanted or line):
        raise SystemExit(f"{running.args!r} printed {line!r} instead of {wanted!r}")
    return line


def cpu_s(pid: int) -> float:
    """Processor time so far of a process and of children that have ended, in s. Linux only.

    Source: proc(5), /proc/pid/stat, fields 14 to 17.
    """
    return sum(map(int, _stat(pid)[11:15])) / TICKS_PER_S


def family_cpu_s(pid: int) -> float:
    """Processor time of a process and of all children that it has or had, in s. Linux only."""
    total = cpu_s(pid)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(_stat(int(entry.name))[1]) == pid:
                total += cpu_s(int(entry.name))
    return total


def postmaster(conn: psycopg.Connection[Any]) -> int | None:
    """The process that all of PostgreSQL's are children of; None if it is on another machine."""
    with contextlib.suppress(OSError):
        backend = conn.info.backend_pid
        name = Path(f"/proc/{backend}/comm").read_text(encoding="utf-8").strip()
        return int(_stat(backend)[1]) if name == "postgres" else None
    return None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/pid/stat from the third one on; the second may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def rss_kib(pid: int) -> int:
    """Memory of a process that is in RAM, in KiB. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def busy_s() -> float:
    """Core-seconds that the machine has worked since boot, for everybody. Linux only.

    Source: proc(5), the first line of /proc/stat; idle, iowait and steal are left out.
    """
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    ticks = [int(text) for text in first.split()[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_S


def host() -> str:
    """What the figures were measured on, in a few words."""
    model = "unknown processor"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return (
        f"{os.cpu_count()} cores ({model}), load {os.getloadavg()[0]:.1f} before;"
        f" Python {platform.python_version()}"
    )


def machine(conn: psycopg.Connection[Any]) -> str:
    """One line about what the figures were measured on, the database included."""
    return f"{host()}, PostgreSQL {conn.info.parameter_status('server_version')}"


def print_complaints(server: Server) -> None:
    """The first few, for nobody believes figures of a server that had to warn."""
    for line in server.complaints[:3]:
        print(f"the server said: {line}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all lie (nearest rank); NaN without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
