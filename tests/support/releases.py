"""The release before this one, taken out of the history, to be run beside this one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
FIRST: Final = "bbe9d95"
"""The first commit whose servers work on newer schemas; stands for the release before until one is
tagged."""


def previous_release() -> str:
    """The newest version tag that is not this very commit; without one, `FIRST`."""
    tags = _git("tag", "--list", "v*", "--sort=-v:refname", "--no-contains", "HEAD")
    names = tags.stdout.decode().split() if tags.returncode == 0 else []
    return names[0] if names else FIRST


def extract_previous(folder: Path) -> tuple[str, Mapping[str, str]]:
    """Put the release before this one into a folder.

    Returns:
        Its name, and the environment in which its packages are found before ours.
    """
    name = previous_release()
    archive = _git("archive", "--format=tar", name, "runkon_server", "runkon_client", "protos")
    if archive.returncode != 0:
        pytest.skip(f"the history does not go back to {name}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(folder, filter="data")
    # The safe path leaves out the present folder, where ours are.
    return name, {"PYTHONPATH": f"{folder}:{folder / 'protos'}", "PYTHONSAFEPATH": "1"}


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
