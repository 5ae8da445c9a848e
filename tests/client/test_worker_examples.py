"""The example of items and gates, and the example script, do what they say."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runkon.v1 import workers_pb2
from runkon_client import FinalError
from runkon_client.cli.modules import load_actions
from runkon_client.worker import Approved, GateTask, Item, ItemsTask, Pending
from runkon_client.worker.scripts import SandboxMode, Script, open_scripts

if TYPE_CHECKING:
    from collections.abc import Iterable

WORKERS: Final = Path(__file__).resolve().parents[2] / "examples/workers"
ACTIONS: Final = load_actions(str(WORKERS / "items_and_gates.py"))


def found_by_packages(**work: Any) -> Iterable[Item]:
    lease = workers_pb2.TaskLease(items=workers_pb2.ItemsWork(has_scope=True, **work))
    provider = ACTIONS.find_items("packages")
    assert provider is not None
    found: Iterable[Item] = provider.function(ItemsTask(lease, None))  # type: ignore[arg-type]  # asks nothing of it
    return found


def test_packages_are_found_with_what_they_depend_on(tmp_path: Path) -> None:
    """Sorted by their folders; private ones only if nobody minds."""
    packages: dict[str, dict[str, object]] = {
        "web": {"version": "2.0.0", "dependencies": {"core": "1"}},
        "core": {"private": True},
    }
    for name, about in packages.items():
        tmp_path.joinpath(name).mkdir()
        text = json.dumps({"name": name, **about})
        tmp_path.joinpath(name, "package.json").write_text(text, encoding="utf-8")
    scope = {"root": str(tmp_path)}
    core, web = found_by_packages(scope=scope)

    assert (core.id, core.context, core.depends_on) == ("core", {"version": "0.0.0"}, ())
    assert (web.ref, web.context, web.depends_on) == (
        str(tmp_path / "web"),
        {"version": "2.0.0"},
        ("core",),
    )
    assert [each.id for each in found_by_packages(scope=scope, filter={"private": "no"})] == ["web"]


def test_a_scope_that_is_not_there_is_final(tmp_path: Path) -> None:
    """Another attempt would look in the same place."""
    with pytest.raises(FinalError, match="is no folder"):
        list(found_by_packages(scope={"root": str(tmp_path / "missing")}))


def test_a_freeze_is_waited_for(tmp_path: Path) -> None:
    """As long as its file is there; what it says is what the gate waits for."""
    file = tmp_path / "freeze"
    lease = workers_pb2.TaskLease(inputs={"freeze_file": str(file)})
    resolver = ACTIONS.find_gate("change_freeze")
    assert resolver is not None
    task = GateTask(lease, None)  # type: ignore[arg-type]  # nothing is asked of a host

    file.write_text("until Monday\n", encoding="utf-8")
    assert resolver.function(task) == Pending(note="until Monday", delay=timedelta(minutes=5))
    file.unlink()
    assert resolver.function(task) == Approved(feedback="there is no freeze")


@pytest.mark.parametrize(("lines", "marker"), [(1, "short"), (11, "long")])
async def test_the_example_script_tells_in_a_block(lines: int, marker: str) -> None:
    """What stands in the block is JSON, whatever the text holds."""
    text = "\n".join(['"; rm -rf /'] * lines)
    with open_scripts(WORKERS / "scripts", sandbox=SandboxMode.NONE) as runner:
        outcome = await runner.run(
            Script(name="s", text='count-lines.sh "$TEXT"', environment={"TEXT": text})
        )
    block = outcome.stdout.partition("<<<FLOW_OUTPUT>>>\n")[2].partition("\n<<<END")[0]

    assert outcome.is_success, outcome.stderr
    assert json.loads(block) == {
        "markers": [marker],
        "context": f"{lines} lines",
        "lines": str(lines),
    }
