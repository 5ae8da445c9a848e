"""The embedded PostgreSQL: what survives, what dies with its owner, what is left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from runkon_server.store import embedded
from runkon_server.store.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    default_data_dir,
    find_bindir,
)
from runkon_server.verify.ports import kept_port
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = """
import signal, sys
from runkon_server.store.embedded import EmbeddedPostgres
print(EmbeddedPostgres(sys.argv[1]).start(), flush=True)
signal.pause()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to use")


@pytest.fixture(scope="module")
def cluster(session_folder: Path) -> Path:
    """The folder of a server that was started and stopped once; making one is what takes time."""
    folder = session_folder / "cluster"
    with EmbeddedPostgres(folder, fast=True):
        return folder


@pytest.fixture
def root(cluster: Path, open_folder: Path) -> Path:
    """A copy of `cluster`, owners and permissions included."""
    folder = open_folder / "server"
    subprocess.run(["cp", "-a", cluster, folder], check=True)
    return folder


@contextlib.contextmanager
def owner_of(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that owns a server in `root` until it is killed, and the server's URL."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        try:
            assert owner.stdout is not None
            yield owner, owner.stdout.readline().strip()
        finally:
            owner.kill()
            pidfile = root / "data/postmaster.pid"
            wait_until(lambda: not pidfile.exists(), "the server ends after its owner")


@contextlib.contextmanager
def stranger(*command: str, executable: str = "sleep") -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    with subprocess.Popen(command, executable=shutil.which(executable)) as process:
        try:
            yield process
        finally:
            process.kill()


def fill(dsn: str, rows: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, %s)", [rows])


def count(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT count(*) FROM kept").fetchone()


def postmaster_of(root: Path) -> psutil.Process:
    return psutil.Process(int((root / "data/postmaster.pid").read_text().split()[0]))


def test_data_and_address_survive_a_restart(root: Path) -> None:
    """Stop in order, start again by another object: same rows, same URL."""
    with kept_port() as port:
        with EmbeddedPostgres(root, port=port) as first:
            fill(first, 1000)
        with EmbeddedPostgres(root) as second:
            counted = count(second)

    assert counted == (1000,)
    assert second == first


def test_a_fast_server_checks_passwords_at_little_cost(root: Path) -> None:
    """Its verifier says how often the hash is repeated, for each connection: 4096 times else."""
    with EmbeddedPostgres(root, fast=True) as dsn, psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'runkon'")
        version = connection.info.server_version
        assert str(found.fetchone()).startswith(
            "('SCRAM-SHA-256$1:" if version >= 160_000 else "('SCRAM-SHA-256$4096:"
        )


def test_stop_may_come_twice_and_before_start(root: Path) -> None:
    """The same object is stopped, started, stopped twice and started again."""
    server = EmbeddedPostgres(root, fast=True)
    server.stop()
    fill(server.start(), 1)
    server.stop()
    server.stop()

    with server as dsn:
        assert count(dsn) == (1,)


def test_killing_the_owner_ends_the_server_and_keeps_the_data(root: Path) -> None:
    """Kill -9 of the owner: its postmaster ends by itself; the next owner finds every row."""
    with owner_of(root) as (owner, dsn):
        fill(dsn, 100_000)
        postmaster = postmaster_of(root)
        owner.kill()
        wait_until(lambda: not postmaster.is_running(), "the server ends after its owner")

    with EmbeddedPostgres(root) as again:
        assert count(again) == (100_000,)


def test_next_owner_may_start_while_the_old_server_still_ends(root: Path) -> None:
    """Kill -9 of the owner and a start at once: no wait in between, nothing lost."""
    with owner_of(root) as (owner, dsn):
        fill(dsn, 1000)
        owner.kill()
        owner.wait()
        with EmbeddedPostgres(root) as again:
            assert count(again) == (1000,)


def test_orphan_whose_guard_was_killed_is_replaced(root: Path) -> None:
    """Kill -9 of guard and owner leaves a working server; the next owner ends it and takes over."""
    with owner_of(root) as (owner, dsn):
        fill(dsn, 1000)
        orphan = postmaster_of(root)
        guard = orphan.parent()
        assert guard is not None
        guard.kill()
        owner.kill()
        owner.wait()
        wait_until(lambda: not guard.is_running(), "the guard ends")

        assert orphan.is_running()
        with EmbeddedPostgres(root) as again:
            assert count(again) == (1000,)
            assert postmaster_of(root) != orphan


def test_crashed_postmaster_is_recovered(root: Path) -> None:
    """Kill -9 of the postmaster under its owner: a restart finds every committed row."""
    server = EmbeddedPostgres(root)
    fill(server.start(), 1000)
    postmaster_of(root).kill()
    server.stop()

    with server as dsn:
        assert count(dsn) == (1000,)


@pytest.mark.parametrize("name", ["sleep", "/usr/bin/postgres"])
def test_stranger_in_a_stale_pidfile_is_left_alone(root: Path, name: str) -> None:
    """A pidfile of a server long gone names a living process, be it called postgres."""
    with EmbeddedPostgres(root, fast=True) as dsn:
        fill(dsn, 10)
    with stranger(name, "600") as process:
        (root / "data/postmaster.pid").write_text(f"{process.pid}\n{root}/data\n")
        with EmbeddedPostgres(root, fast=True) as again:
            counted = count(again)

        assert counted == (10,)
        assert process.poll() is None


def test_second_owner_is_refused_by_name(root: Path) -> None:
    """A folder in use: the error names the process; the server goes on serving."""
    with owner_of(root) as (owner, dsn):
        fill(dsn, 1)
        with pytest.raises(EmbeddedPostgresError, match=f"in use by process {owner.pid}"):
            EmbeddedPostgres(root).start()

        assert count(dsn) == (1,)


def test_unfinished_cluster_is_made_anew(root: Path) -> None:
    """What an initdb killed half-way left behind is neither used nor in the way."""
    (root / "data").rename(root / "data.new")
    (root / "data.new/PG_VERSION").unlink()

    with EmbeddedPostgres(root, fast=True) as dsn:
        fill(dsn, 1)


def test_folder_with_other_contents_is_refused_untouched(open_folder: Path) -> None:
    """A mistyped folder with somebody's files in it stays as it is."""
    (open_folder / "thesis.txt").write_text("x")
    with pytest.raises(EmbeddedPostgresError, match="holds something else"):
        EmbeddedPostgres(open_folder).start()

    assert [path.name for path in open_folder.iterdir()] == ["thesis.txt"]


def test_other_major_version_is_refused(root: Path) -> None:
    """Programs of another version than made the data: both are named, and the way out."""
    (root / "data/PG_VERSION").write_text("13\n")

    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 13.*RUNKON_PG_BINDIR"):
        EmbeddedPostgres(root).start()


def test_programs_too_old_are_refused(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old server of the distribution's: refused by its version, before it makes a cluster."""
    for program in ("postgres", "initdb"):
        path = open_folder / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) 13.4'\n")
        path.chmod(0o755)
    monkeypatch.setenv("RUNKON_PG_BINDIR", str(open_folder))

    with pytest.raises(EmbeddedPostgresError, match="PostgreSQL 13, but Runkon needs 15"):
        EmbeddedPostgres(open_folder / "server").start()


def test_missing_programs_are_an_error_that_says_where(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RUNKON_PG_BINDIR names a folder without programs: no silent fallback."""
    monkeypatch.setenv("RUNKON_PG_BINDIR", str(open_folder))
    with pytest.raises(EmbeddedPostgresError, match=f"RUNKON_PG_BINDIR={open_folder} has no"):
        find_bindir()


def test_taken_port_is_refused_at_once(root: Path) -> None:
    """The port that was asked for belongs to somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedPostgresError, match=f"port {port} of 127.0.0.1 is taken"):
            EmbeddedPostgres(root, port=port).start()


def test_remembered_port_that_is_taken_gives_way(root: Path) -> None:
    """The port of last time belongs to somebody else: another one is used."""
    with EmbeddedPostgres(root, fast=True) as first:
        pass
    port = psycopg.conninfo.conninfo_to_dict(first)["port"]
    with (
        socket.create_server(("127.0.0.1", int(str(port)))),
        EmbeddedPostgres(root, fast=True) as second,
    ):
        assert second != first


def test_port_that_is_taken_under_our_hands_gives_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was free when it was chosen, and somebody has it when the server begins: another is."""
    find = embedded._free_port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken: int = other.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(embedded, "_free_port", lambda last: next(ports, None) or find(last))
        with EmbeddedPostgres(root, fast=True) as dsn:
            assert psycopg.conninfo.conninfo_to_dict(dsn)["port"] != str(taken)


def test_server_that_cannot_start_says_why(root: Path) -> None:
    """A broken configuration: the error carries PostgreSQL's own words, and the folder is free."""
    server = EmbeddedPostgres(root)
    configuration = root / "data/postgresql.conf"
    sound = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        server.start()
    configuration.write_text(sound)

    with server:
        pass


def test_only_the_password_opens_it_and_only_the_owner_reads_it(root: Path) -> None:
    """Loopback is open to every user of the machine: no trust, and the secret is private."""
    with EmbeddedPostgres(root, fast=True) as dsn:
        wrong = psycopg.conninfo.make_conninfo(dsn, password="wrong")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(wrong).close()

        assert (root / "connection.json").stat().st_mode & 0o777 == 0o600
        assert (root / "postgres.log").stat().st_mode & 0o777 == 0o600


def test_server_does_not_see_our_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the owner's environment, and PG* settings meant for another server, stay out."""
    monkeypatch.setenv("CLOUD_TOKEN", "secret")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with EmbeddedPostgres(root, fast=True):
        seen = postmaster_of(root).environ()

    assert not {"CLOUD_TOKEN", "PGDATA"} & seen.keys()


def test_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user: XDG_DATA_HOME counts when absolute, else ~/.local/share."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir() == Path("/data/runkon/postgres")
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert default_data_dir() == Path("/home/ann/.local/share/runkon/postgres")


@as_root
def test_root_runs_the_server_as_another_and_opens_no_parent(open_folder: Path) -> None:
    """The postmaster's user is postgres or nobody; the folders above keep their permissions."""
    parent = open_folder / "parent"
    parent.mkdir(mode=0o711)
    with EmbeddedPostgres(parent / "server", fast=True):
        user = postmaster_of(parent / "server").username()

    assert user in ("postgres", "nobody")
    assert parent.stat().st_mode & 0o777 == 0o711


@as_root
def test_root_is_told_when_the_server_could_not_enter(open_folder: Path) -> None:
    """A folder below a closed one: refused with a way out, and the closed one stays closed."""
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match="only its owner may enter"):
        EmbeddedPostgres(closed / "server").start()

    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
def test_programs_below_a_closed_folder_are_copied(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's environment in a closed home: the server runs a copy, the home stays closed."""
    if find_bindir().is_relative_to("/usr"):
        pytest.skip("a distribution's programs cannot be moved")
    closed, package = open_folder / "closed", find_bindir().parents[1]
    closed.mkdir(mode=0o700)
    shutil.copytree(package, closed / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    moved = closed / find_bindir().relative_to(package.parent)
    monkeypatch.setenv("RUNKON_PG_BINDIR", str(moved))

    with EmbeddedPostgres(open_folder / "server", fast=True) as dsn:
        fill(dsn, 1)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_signals_of_a_terminal_do_not_reach_the_server(root: Path) -> None:
    """What a terminal sends to all its processes does not end the server behind its owner."""
    with owner_of(root) as (owner, _):
        postmaster = postmaster_of(root)
        guard = postmaster.parent()
        assert guard is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            guard.send_signal(number)
        assert postmaster.is_running()
        assert os.getsid(postmaster.pid) != os.getsid(owner.pid)
