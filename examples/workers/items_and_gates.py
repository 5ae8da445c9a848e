"""A worker that finds the packages of a repository, and holds releases back during a freeze.

runkon worker examples/workers/items_and_gates.py

A `foreach over packages` runs a workflow for each folder that holds a `package.json`; with
`ordered = true` what a package depends on comes before it. A `gate change_freeze` opens by itself
once the file that the run's variable `freeze_file` names is gone.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from runkon_client import Actions, FinalError
from runkon_client.worker import Approved, Item, Pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client.worker import GateAnswer, GateTask, ItemsTask

actions = Actions()


@actions.items("packages")
def packages(task: ItemsTask) -> Iterator[Item]:
    """Every package below `scope.root`; `filter.private = "no"` leaves private ones out."""
    root = Path((task.scope or {}).get("root", "."))
    if not root.is_dir():
        raise FinalError(f"{root} is no folder", code="NO_SUCH_FOLDER")
    for file in sorted(root.rglob("package.json")):
        about = json.loads(file.read_text(encoding="utf-8"))
        if task.filter.get("private") == "no" and about.get("private"):
            continue
        yield Item(
            id=about["name"],
            type="package",
            ref=str(file.parent),
            context={"version": about.get("version", "0.0.0")},
            depends_on=tuple(about.get("dependencies", ())),
        )


@actions.gate("change_freeze")
def change_freeze(task: GateTask) -> GateAnswer:
    """Wait for the end of a freeze; the file says what it is about."""
    file = Path(task.inputs["freeze_file"])
    if not file.exists():
        return Approved(feedback="there is no freeze")
    return Pending(note=file.read_text(encoding="utf-8").strip(), delay=timedelta(minutes=5))
