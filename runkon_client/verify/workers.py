"""A worker as users write them, on the SDK, that logs every effect before it answers."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from runkon_client.verify.orders import until_stdin_ends
from runkon_client.verify.roles import act
from runkon_client.worker import ActionOutput, Actions, FinalError, RetryableError, Worker
from runkon_client.worker.items import Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runkon_client.verify.histories import History
    from runkon_client.worker import Task
    from runkon_client.worker.items import ItemsTask

CONCURRENCY: Final = 6
PROVIDER: Final = "verify-things"
WORK_MAX_S: Final = 0.06


class SteadyWorker:
    """Does what the names of the actions say, takes a moment for it, and reports once.

    Args:
        queues: those that it serves; none: the default one.
    """

    def __init__(
        self, history: History, address: str, *, seed: int, queues: Sequence[str] = ()
    ) -> None:
        self._history = history
        self._address = address
        self._chance = random.Random(seed)  # noqa: S311 - decides what a test does
        self._queues = tuple(queues)

    async def run(self) -> None:
        """Work until standard input ends."""
        actions = Actions()
        actions.fallback(self._execute)
        actions.items(PROVIDER)(things)
        worker = Worker(
            self._address,
            actions=actions,
            concurrency=CONCURRENCY,
            worker_id=self._history.name,
            principal=self._history.name,
            queues=self._queues,
        )
        working = asyncio.create_task(worker.run())
        stopping = asyncio.create_task(until_stdin_ends())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        worker.stop()
        await working
        stopping.cancel()

    async def _execute(self, task: Task) -> ActionOutput:
        await asyncio.sleep(self._chance.random() * WORK_MAX_S)
        result = act(
            task.action, attempt=task.attempt, iteration=task.iteration, inputs=task.inputs
        )
        self._history.affect(
            idem_key=task.idempotency_key,
            run=task.run_id,
            workflow=task.workflow_name,
            step=task.action,
            step_id=task.step_id,
            iterations=task.iterations,
            item=task.inputs.get("item", ""),
            attempt=task.attempt,
            delivery=task.delivery,
            task=task.id,
            fence=task.fence,
            queues=self._queues,
            payload=result.outcome,
        )
        if result.fails:
            kind = FinalError if result.is_final else RetryableError
            raise kind(f"{task.action} fails as its name says", code="SCRIPTED")
        return ActionOutput(markers=result.markers, context=f"{task.action} is done")


def things(task: ItemsTask) -> Iterator[Item]:
    """`i0`, `i1`, …: as many as the filter says; each needs the one before if there is an order."""
    count = int(task.filter["count"])
    for number in range(count):
        before = (f"i{number - 1}",) if task.ordered and number else ()
        yield Item(id=f"i{number}", type="thing", ref=f"thing {number}", depends_on=before)
