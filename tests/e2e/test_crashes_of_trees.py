"""`kill -9` with a tree of runs in progress: every child runs once, every parent hears of it."""

from __future__ import annotations

import asyncio
import json
import signal

from runkon_client import Actions, Client, Task
from runkon_client.values import RunStatus
from support.clusters import replicas, rows, working

ITEMS = 60
EACH = "workflow each { inputs { n required } call work }"
TREE = """workflow tree {
  inputs { numbers required }
  foreach all {
    over = list
    max_parallel = 12
    workflow = each
    scope = { items = "{{numbers}}" }
    inputs = { n = "{{item.id}}" }
  }
  call workflow each { inputs = { n = "last" } }
}"""


class Paused:
    """One action that stands still after so many tasks until it is let go."""

    def __init__(self, after: int) -> None:
        self.actions = Actions()
        self.actions.action("work")(self._work)
        self.done: list[str] = []
        self.paused = asyncio.Event()
        self.go = asyncio.Event()
        self._after = after

    async def _work(self, task: Task) -> str:
        if len(self.done) >= self._after:
            self.paused.set()
            await self.go.wait()
        self.done.append(task.inputs["n"])
        return task.inputs["n"]


async def test_a_killed_owner_of_a_tree_loses_no_item_and_repeats_none(database: str) -> None:
    """The owner of parent and children dies in the middle of the items."""
    work = Paused(after=25)
    numbers = [str(number) for number in range(ITEMS)]
    with replicas(database, 2) as (owner, other):
        async with (
            Client(owner.address) as starter,
            Client(other.address) as watcher,
            working(other.address, work.actions, concurrency=8),
        ):
            await starter.put_workflow(EACH)
            run = await starter.start_run(source=TREE, inputs={"numbers": json.dumps(numbers)})
            await asyncio.wait_for(work.paused.wait(), 60)
            await owner.stop(signal.SIGKILL)
            work.go.set()
            ended = await watcher.run(run.id).wait()
            told = [event.seq async for event in watcher.run(run.id).events()]

    assert ended.status is RunStatus.COMPLETED
    assert told == [*range(1, ended.last_seq + 1)]
    assert sorted(work.done) == sorted([*numbers, "last"])
    children = rows(
        database,
        "SELECT status, parent_notified, count(*) FROM workflow_runs"
        " WHERE parent_workflow_run_id IS NOT NULL GROUP BY 1, 2",
    )
    assert children == [("completed", True, ITEMS + 1)]
    items = rows(
        database,
        "SELECT status, count(*), count(DISTINCT child_run_id)"
        " FROM workflow_run_step_fan_out_items GROUP BY 1",
    )
    assert items == [("completed", ITEMS, ITEMS)]
    counted = rows(
        database,
        "SELECT fan_out_total, fan_out_completed FROM workflow_run_steps WHERE role = 'foreach'",
    )
    assert counted == [(ITEMS, ITEMS)]
    assert rows(database, "SELECT 1 FROM tasks WHERE state <> 'done'") == []
