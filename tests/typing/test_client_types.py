"""The client's types hold callers to the contract: right use passes mypy, each mistake fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ERROR: Final = re.compile(r"caller\.py:(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)
ROOT: Final = Path(__file__).resolve().parents[2]

RIGHT_USE: Final = """
from datetime import timedelta
from typing import assert_never

from runkon_client import ActionOutput, Client, RunSpec, SyncClient, Task, Worker
from runkon_client.values import Run, RunEvent, RunFinished, Snapshot, StepEvent

worker = Worker()


@worker.action("plan")
async def plan(task: Task) -> ActionOutput:
    task.heartbeat(task.inputs["ticket"])
    return ActionOutput(markers=("done",))


@worker.action("lint")
def lint(task: Task) -> dict[str, list[str]]:
    return {"markers": [task.run_id]}


async def call(client: Client) -> Run:
    handle = await client.start_run("deploy", inputs={"a": "b"}, start_delay=timedelta(seconds=1))
    outcomes = await client.start_runs([RunSpec("deploy", priority=3)])
    first = outcomes[0]
    if isinstance(first, Exception):
        raise first
    async for event in handle.events():
        match event:
            case RunFinished():
                print(event.status.is_terminal)
            case StepEvent():
                print(event.step.markers)
            case _:
                print(event.seq)
    async for item in handle.snapshot_events():
        if isinstance(item, Snapshot):
            print(item.run.status)
    async for each in client.events(kinds=[], labels={"team": "core"}):
        match each.event:
            case RunFinished():
                cursor: str = each.cursor
                print(cursor)
            case _:
                print(each.event.run_id)
    async for listed in client.gates.watch(gate_type="human_review"):
        await listed.approve()
    async for gate in handle.gates():
        await gate.approve("fine", selections=gate.gate.options[0].key.split())
    return await handle.wait(timedelta(seconds=5))


def call_sync(client: SyncClient) -> list[int]:
    return [event.seq for event in client.start_run("deploy").events()]
"""

MISTAKES: Final[dict[str, tuple[str, str]]] = {
    "an option that is none": ('await client.start_run("w", input={"a": "b"})', "call-arg"),
    "inputs that are no texts": ('await client.start_run("w", inputs={"a": 1})', "dict-item"),
    "a delay in seconds": ('await client.start_run("w", start_delay=3)', "typeddict-item|arg-type"),
    "a result used without await": ('client.run("r").get().status', "attr-defined"),
    "a policy as text": (
        'await client.start_run("w", conflict_policy="fail")',
        "typeddict-item|arg-type",
    ),
    "a field that no run has": ('(await client.get_run("r")).state', "attr-defined"),
    "a value that is changed": ('(await client.get_run("r")).error = ""', "misc"),
    "an action without its task": ('Worker().action("a")(lambda: None)', "misc|arg-type|type-var"),
    "an action with an odd result": ('Worker().action("a")(number)', "type-var|arg-type"),
    "a cursor of a run for a namespace": ("client.events(cursor=3)", "arg-type"),
    "a cursor of a namespace as a number": (
        "number_of: int = client.gates.watch().cursor or 0",
        "assignment",
    ),
    "a match that forgets events": (
        "match event:\n        case RunFinished(): pass\n        case _: assert_never(event)",
        "arg-type",
    ),
}


def check(folder: Path, source: str) -> str:
    """What mypy, as strict as for the project itself, says about a caller's module."""
    module = folder / "caller.py"
    module.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_right_use_type_checks(tmp_path: Path) -> None:
    """Handles, events, gates and actions, as documented, without a single cast."""
    assert "Success" in check(tmp_path, RIGHT_USE)


def test_each_mistake_is_found(tmp_path: Path) -> None:
    """All of them in one module, each on a line of its own; mypy is slow to start."""
    lines = [
        "from typing import assert_never",
        "from runkon_client import Client, Task, Worker",
        "from runkon_client.values import RunEvent, RunFinished",
        "def number(task: Task) -> int:",
        "    return 3",
    ]
    places: dict[str, range] = {}
    for index, (name, (code, _)) in enumerate(MISTAKES.items()):
        lines.append(f"async def mistake_{index}(client: Client, event: RunEvent) -> None:")
        first = len(lines) + 1
        lines += f"    {code}".splitlines()
        places[name] = range(first, len(lines) + 1)

    output = check(tmp_path, "\n".join(lines) + "\n")
    found = {(int(line), code) for line, code in ERROR.findall(output)}
    missed = {
        name
        for name, place in places.items()
        if not any((line, code) in found for line in place for code in MISTAKES[name][1].split("|"))
    }

    assert not missed, output
    assert {line for line, _ in found} <= {line for place in places.values() for line in place}
