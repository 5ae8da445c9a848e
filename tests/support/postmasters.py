"""PostgreSQL servers that tests may harm: stopped in every way, copied, promoted, filled up.

The programs are those of the other tests (`RUNKON_TEST_POSTGRES`). What the operating system keeps
of its writes survives a crash of the server, so these servers need not force them to the disk.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from psycopg import sql

from runkon_server.store.embedded_binaries import copy_for_others, find_bindir, is_reachable
from runkon_server.store.embedded_process import Account, environment
from runkon_server.verify.ports import kept_port
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FAST: Final = signal.SIGINT
IMMEDIATE: Final = signal.SIGQUIT
"""What `pg_ctl -m fast` and `-m immediate` send."""
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "logging_collector": "off",
    "wal_keep_size": "64MB",
}
_START_S: Final = 60.0
# Python would fork for `user=`, in which gRPC's handlers crash now and then; for this it does not.
_AS_USER: Final = """
import os, signal, sys
pipe, uid, gid = map(int, sys.argv[1:4])
if uid >= 0:
    os.setgroups([]), os.setgid(gid), os.setuid(uid)
server = os.getpid()
if (child := os.fork()) == 0:
    if os.fork() == 0:  # a child of nobody's: the postmaster would wonder about one of its own
        if not os.read(pipe, 1):
            os.kill(server, signal.SIGQUIT)
            os.kill(server, signal.SIGCONT)
    os._exit(0)
os.waitpid(child, 0)
os.close(pipe)
os.execv(sys.argv[4], sys.argv[4:])
"""
"""Becomes the server, and leaves a watcher: one that reads the pipe's end without a byte before it
has lost the test process, however that ended, and ends the server."""


class Postmaster:
    """A cluster in a folder and, while it runs, its server.

    Args:
        folder: where its data and log are; others must be able to enter it.
        settings: beside `SETTINGS`; kept over restarts.
        variables: of its environment, beside the few that it always has.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        # Set for the server only: what is preloaded must not run before its user is another one.
        self._prefix = ["/usr/bin/env", *(f"{name}={text}" for name, text in variables.items())]
        self.settings = {**SETTINGS, **(settings or {})}
        self._kept = contextlib.ExitStack()
        self.port = self._kept.enter_context(kept_port())
        self._account = _account()
        self._bindir = _bindir(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: int | None = None
        """Our end of the watcher's pipe."""

    def create(self) -> None:
        """Make an empty cluster."""
        self._make_folder()
        self._run("initdb", "-D", self.data, "-U", "runkon", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip

    def _make_folder(self) -> None:
        self.folder.chmod(0o711)
        self.data.mkdir(mode=0o700)
        self._account.own(self.data)

    def copy_of(self, primary: Postmaster) -> None:
        """Become a standby of another cluster, which runs: a base backup that goes on following."""
        self._make_folder()
        source = f"postgresql://runkon@127.0.0.1:{primary.port}/postgres"
        self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast",
                  "--no-sync", "-d", source)  # fmt: skip

    def start(self) -> None:
        """Start, and wait until it answers; a server that was killed leaves its memory a while."""
        deadline = time.monotonic() + _START_S
        while True:
            self._spawn()
            while self.is_running and not self._answers():
                time.sleep(0.02)
            if self.is_running:
                return
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _spawn(self) -> None:
        self._release()
        settings = {**self.settings, "port": str(self.port)}
        options = [f"-c{name}={value}" for name, value in settings.items()]
        theirs, self._watched = os.pipe()
        with (self.folder / "log").open("ab") as log, os.fdopen(theirs):
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", _AS_USER, str(theirs),
                 str(self._account.uid), str(self._account.gid),
                 *self._prefix, self._bindir / "postgres", "-D", self.data, *options],
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                start_new_session=True,
            )  # fmt: skip

    def _release(self) -> None:
        """Tell the watcher of a server that has ended that there is nothing to watch any more."""
        if self._watched is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._watched, b".")
            os.close(self._watched)
            self._watched = None

    @property
    def pid(self) -> int:
        """Of the postmaster, which was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, how: signal.Signals = FAST) -> None:
        """Signal the postmaster and wait for its end."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(how)
            self._process.wait(60)
        self._release()

    def end(self) -> None:
        """Stop for good: its port may be anybody's."""
        self.stop(IMMEDIATE)
        self._kept.close()

    def restart(self, how: signal.Signals) -> None:
        """Stop in this way and start again on the same port."""
        self.stop(how)
        self.start()

    def promote(self) -> None:
        """Make a standby the primary of its own timeline."""
        self.execute("SELECT pg_promote(true, 30)")

    def dsn(self, database: str = "postgres") -> str:
        """The URL of one of its databases, for its superuser."""
        return f"postgresql://runkon@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: LiteralString, *names: str) -> None:
        """Run a statement as superuser; `{}` are identifiers."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def log(self) -> str:
        """The end of what the server said."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.dsn(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _run(self, program: str, *arguments: str | Path) -> None:
        self._account.run(self._bindir / program, *arguments)


def _account() -> Account:
    if os.geteuid() != 0:
        return Account()
    user = pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")
    return Account(user.pw_uid, user.pw_gid)


def _has_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _bindir(folder: Path) -> Path:
    bindir = find_bindir()
    if os.geteuid() != 0 or is_reachable(bindir):
        return bindir
    return copy_for_others(bindir, folder.parent / "programs")


@contextlib.contextmanager
def running(
    folder: Path, variables: Mapping[str, str] = MappingProxyType({}), /, **settings: str
) -> Iterator[Postmaster]:
    """A fresh server in a new folder, killed at the end; the arguments are `Postmaster`'s."""
    folder.mkdir()
    server = Postmaster(folder, settings, variables)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


def caught_up(primary: Postmaster, standby: Postmaster) -> None:
    """Return once the standby has applied everything that the primary has written."""
    with (
        psycopg.connect(primary.dsn(), autocommit=True) as one,
        psycopg.connect(standby.dsn(), autocommit=True) as other,
    ):
        written = one.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert written is not None
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"

        def has_all() -> bool:
            row = other.execute(reached, written).fetchone()
            return bool(row and row[0])

        wait_until(has_all, "the standby has caught up")
