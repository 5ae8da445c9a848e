"""What a sandbox keeps from a script, and what happens when its launcher or worker dies."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from client.scripts.runners import processes_with, runner_in

from runkon_client.worker.scripts import (
    NO_SANDBOX,
    Sandbox,
    SandboxMissingError,
    SandboxMode,
    Script,
    View,
    find_sandbox,
    open_scripts,
)
from runkon_client.worker.scripts.environment import PATH
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY: Final = 65534
WORKER: Final = """
import asyncio, sys
from pathlib import Path
from runkon_client.worker.scripts import *
name, program, mount_point, folder, text, mark = sys.argv[1:]
runner = ScriptRunner(View(folder=Path(folder)), sandbox=Sandbox(name, program, mount_point))
outcome = asyncio.run(runner.run(Script(name="s", text=text, environment={mark: "1"})))
print(outcome.failure_text("script s"))
"""


async def test_a_script_sees_the_system_and_its_folder(real_sandbox: Sandbox, folder: Path) -> None:
    """Not the worker's files: neither homes, nor the rest of /etc, nor what lies beside."""
    folder.joinpath("mine").write_text("here", encoding="utf-8")
    folder.parent.joinpath("secret").write_text("canary", encoding="utf-8")
    run = runner_in(real_sandbox, View(folder=folder))
    outcome = await run(
        f"cat mine; ls /; for p in /etc/shadow /etc/passwd {folder.parent}/secret {__file__}; "
        "do cat $p && echo SEEN; done; echo x > mine; echo x > /usr/x; echo x > /x; "
        "echo x > /proc/sys/kernel/core_pattern; :"
    )

    top = set(outcome.stdout.removeprefix("here").split())
    assert outcome.is_success
    assert top <= {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "sbin",
        "tmp",
        "usr",
    }
    assert outcome.stderr.count("Read-only file system") == 4, outcome.stderr
    assert folder.joinpath("mine").read_text(encoding="utf-8") == "here"


async def test_what_the_operator_opens_is_open(real_sandbox: Sandbox, folder: Path) -> None:
    """The folder to write to, another one to read; a folder inside it stays as it is given."""
    other = folder.parent / "other"
    other.mkdir()
    other.joinpath("tool").write_text("a tool", encoding="utf-8")
    view = View(folder=folder, is_writable=True, readable=(other,))
    outcome = await runner_in(real_sandbox, view)(
        f"cat {other}/tool > copy && cat copy; echo x > {other}/tool"
    )

    assert outcome.stdout == "a tool"
    assert folder.joinpath("copy").read_text(encoding="utf-8") == "a tool"
    assert other.joinpath("tool").read_text(encoding="utf-8") == "a tool"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("has_network", [False, True])
async def test_the_network_is_shut_unless_it_is_opened(
    real_sandbox: Sandbox, folder: Path, listener: socket.socket, *, has_network: bool
) -> None:
    """Even loopback is another one inside: a server of this machine cannot be reached."""
    view = View(folder=folder, has_network=has_network)
    connect = f"import socket; socket.create_connection({listener.getsockname()!r}, 5)"
    outcome = await runner_in(real_sandbox, view)(f'python3 -c "{connect}"')

    assert outcome.is_success is has_network


async def test_a_script_sees_no_process_but_its_own(real_sandbox: Sandbox, folder: Path) -> None:
    """The worker is none of them: it cannot be looked at, and has no number to be signalled by."""
    run = runner_in(real_sandbox, View(folder=folder))
    outcome = await run(
        "cat /proc/[0-9]*/comm; kill -0 $RUNKON_WORKER",
        environment={"RUNKON_WORKER": str(os.getpid())},
    )

    assert set(outcome.stdout.split()) <= {"sh", "cat", "bwrap"}
    assert "No such process" in outcome.stderr


async def test_a_script_has_no_capabilities_and_gains_none(
    real_sandbox: Sandbox, folder: Path
) -> None:
    """Whatever the worker has; and no program gives any back."""
    run = runner_in(real_sandbox, View(folder=folder))
    outcome = await run("grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status")

    lines = dict(line.split(":\t") for line in outcome.stdout.splitlines())
    assert lines.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in lines.values()} == {0}


@pytest.mark.parametrize("victim", ["worker", "launcher"])
async def test_nothing_outlives_the_worker(
    sandbox: Sandbox, folder: Path, tmp_path: Path, victim: str
) -> None:
    """SIGKILL leaves no time to clean up; a dead launcher takes its script along all the same.

    The step has failed then, and says why.
    """
    mark = f"RUNKON_ORPHAN_{os.getpid()}_{abs(hash(folder))}"
    setup = [sandbox.name, sandbox.program, sandbox.mount_point, str(folder)]
    worker = subprocess.Popen(  # noqa: ASYNC220 - a moment without the loop does no harm
        [sys.executable, "-c", WORKER, *setup, "sleep 600; :", mark],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        wait_until(lambda: processes_with(mark, "sleep"), "the script runs")
        (launcher,) = psutil.Process(worker.pid).children()
        os.kill(worker.pid if victim == "worker" else launcher.pid, signal.SIGKILL)
        said, _ = worker.communicate(timeout=60)
        wait_until(lambda: not psutil.pid_exists(launcher.pid), "the launcher is gone")
        wait_until(lambda: processes_with(mark) == [], "no process of the script is left")
        assert list(tmp_path.glob("runkon-script-*")) == []  # noqa: ASYNC240 - a local folder
        assert said.strip() == (
            "script s could not be run: its launcher was killed" if victim == "launcher" else ""
        )
    finally:
        worker.kill()
        worker.wait()


def test_required_and_missing_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no program can set one up, `auto` goes without and `require` does not; both say why."""
    monkeypatch.setenv("PATH", str(tmp_path))
    view = View(folder=folder)
    why = "bwrap is not installed; unshare is not installed"

    assert find_sandbox(SandboxMode.AUTO, view, tmp_path) == (NO_SANDBOX, why)
    with pytest.raises(SandboxMissingError, match=why):
        find_sandbox(SandboxMode.REQUIRE, view, tmp_path)


def test_a_sandbox_counts_only_if_it_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is there but refuses is not believed; its complaint is handed on."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bwrap", "unshare"):
        tools.joinpath(name).write_text("#!/bin/sh\necho not permitted >&2\nexit 1\n", "utf-8")
        tools.joinpath(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    with pytest.raises(SandboxMissingError, match=r"bwrap does not work here: not permitted"):
        find_sandbox(SandboxMode.REQUIRE, View(folder=folder), tmp_path)


def test_none_is_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    """Nothing is tried out."""
    found = find_sandbox(SandboxMode.NONE, View(folder=folder), tmp_path)

    assert found == (NO_SANDBOX, "as asked for")


def test_an_opened_folder_says_what_protects(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Going without is a warning in the log; a folder that is not there is an error."""
    with open_scripts(folder, sandbox=SandboxMode.NONE):
        pass

    assert "with all rights of this user, in no sandbox: as asked for" in caplog.text
    with pytest.raises(ValueError, match="No such file"), open_scripts(folder / "missing"):
        pass
    file = folder / "file"
    file.touch()
    with pytest.raises(ValueError, match="is no folder"), open_scripts(file):
        pass


async def test_an_opened_folder_runs_its_scripts(folder: Path) -> None:
    """With what the operator hands on, in whatever sandbox there is."""
    with open_scripts(folder, environment={"TOKEN": "t"}) as runner:
        outcome = await runner.run(Script(name="s", text='echo "$TOKEN"; pwd'))

    assert outcome.stdout == f"t\n{folder}\n"


async def test_an_identity_gets_what_is_its_own(folder: Path) -> None:
    """Beside what all scripts get; others, and scripts without an identity, do not see it."""
    environment_of = {"bot": {"GH_TOKEN": "bot's"}}
    with open_scripts(folder, environment={"A": "a"}, environment_of=environment_of) as runner:
        said = [
            (await runner.run(Script(name="s", text='echo "$A $GH_TOKEN"', identity=name))).stdout
            for name in ("bot", "other", "")
        ]

    assert said == ["a bot's\n", "a \n", "a \n"]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users reach; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        for part in ("root", "scripts"):
            folder.joinpath(part).mkdir()
            os.chown(folder / part, NOBODY, NOBODY)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are of a user without rights then")
def test_a_sandbox_needs_no_rights(real_sandbox: Sandbox, shared_folder: Path) -> None:
    """As another user than root it does the same, and the number of processes is limited."""
    folder = shared_folder / "scripts"
    sandbox = Sandbox(real_sandbox.name, real_sandbox.program, str(shared_folder / "root"))
    flood = "i=0; while [ $i -lt 100 ]; do sleep 9 & i=$((i+1)); done"
    text = f"cd {folder} && touch mine && touch /x; {flood}"
    done = subprocess.run(
        sandbox.wrap(["/bin/sh", "-c", text], View(folder=folder, is_writable=True)),
        cwd="/",
        env={"PATH": PATH},
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (64, 64)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert folder.joinpath("mine").exists(), done.stderr
    assert "Read-only file system" in done.stderr
    assert "Cannot fork" in done.stderr
