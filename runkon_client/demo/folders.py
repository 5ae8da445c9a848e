"""Where the demo finds the examples, and where its database stays from one demo to the next."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class Examples:
    """The files that the demo is made of."""

    workflow: Path
    worker: Path


def find_examples() -> Examples:
    """The examples in the source tree that this package lies in.

    Raises:
        click.ClickException: the package was installed without them.
    """
    folder = Path(__file__).resolve().parents[2] / "examples"
    found = Examples(folder / "workflows/ticket-to-pr.wf", folder / "workers/development_cycle.py")
    if not (found.workflow.is_file() and found.worker.is_file()):
        raise click.ClickException(
            "the demo needs the folder `examples` of Runkon's source; get the source and run"
            " `python3 dev.py demo` there"
        )
    return found


def default_data_dir() -> Path:
    """A folder for the demo's database.

    For root outside its home, which the database's own user could not enter.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/runkon/demo")
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local/share") / "runkon/demo"
