"""From a folder and a few choices to a runner of scripts."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runkon_client.worker.scripts.runner import ScriptRunner
from runkon_client.worker.scripts.sandbox import SandboxMode, View, find_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runkon_client.worker.scripts.script import ScriptLimits

_log: Final = logging.getLogger("runkon_client.worker")


@contextlib.contextmanager
def open_scripts(
    folder: Path | str,
    *,
    sandbox: SandboxMode = SandboxMode.AUTO,
    is_writable: bool = False,
    readable: Sequence[Path | str] = (),
    has_network: bool = False,
    environment: Mapping[str, str] | None = None,
    environment_of: Mapping[str, Mapping[str, str]] | None = None,
    limits: ScriptLimits | None = None,
) -> Iterator[ScriptRunner]:
    """A runner for the scripts of a folder, in the best sandbox there is; it says which in the log.

    Args:
        folder: where script files lie, and where all scripts run.
        sandbox: `AUTO` goes without one where none works, `REQUIRE` does not.
        is_writable: whether scripts may write to the folder. Without a sandbox its own permissions
            decide.
        readable: further files and folders that scripts may read.
        has_network: whether scripts may use the network.
        environment: variables that every script gets.
        environment_of: by identity what scripts get that run `as` it, such as a token of its own.
        limits: what one script may use.

    Raises:
        ValueError: the folder, or one of `readable`, is not there.
        SandboxMissingError: a sandbox is required, and none works.
    """
    view = View(
        folder=_real(folder),
        is_writable=is_writable,
        readable=tuple(_real(path) for path in readable),
        has_network=has_network,
    )
    if not view.folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    with tempfile.TemporaryDirectory(prefix="runkon-scripts-") as mount_point:
        found, reason = find_sandbox(sandbox, view, Path(mount_point))
        if found.is_none:
            _log.warning("scripts run with all rights of this user, in no sandbox: %s", reason)
        else:
            _log.info("scripts run in a sandbox: %s", found.name)
        if os.geteuid() == 0:
            _log.warning("scripts run as root: give the worker a user of its own")
        yield ScriptRunner(
            view, sandbox=found, passed=environment, passed_to=environment_of, limits=limits
        )


def _real(path: Path | str) -> Path:
    try:
        return Path(path).resolve(strict=True)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
