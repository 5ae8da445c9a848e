"""Runners in a folder of the test's own, one for each sandbox that works on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from client.scripts.runners import Run, runner_in

from runkon_client.worker.scripts import NO_SANDBOX, Sandbox, SandboxMissingError, View
from runkon_client.worker.scripts.sandbox import try_sandbox

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    return folder.resolve()


@pytest.fixture(params=["none", "namespaces", "bubblewrap"])
def sandbox(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Sandbox:
    if request.param == "none":
        return NO_SANDBOX
    return working_sandbox(request.param, folder, tmp_path)


@pytest.fixture(params=["namespaces", "bubblewrap"])
def real_sandbox(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Sandbox:
    return working_sandbox(request.param, folder, tmp_path)


def working_sandbox(name: str, folder: Path, tmp_path: Path) -> Sandbox:
    """The sandbox of that name; the test is skipped, with the reason, where there is none."""
    mount_point = tmp_path / "root"
    mount_point.mkdir()
    try:
        return try_sandbox(name, View(folder=folder), mount_point)
    except SandboxMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def run(sandbox: Sandbox, folder: Path) -> Run:
    return runner_in(sandbox, View(folder=folder, is_writable=True))


@pytest.fixture
async def ample_s(run: Run) -> float:
    """Seconds in which a script has surely begun, on a machine that may be busy."""
    outcome = await run("python3 -c ''", timeout_s=None)
    return round(max(2.0, 20 * outcome.duration_s), 1)
