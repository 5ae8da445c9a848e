"""Which items a run serves: what tells the child runs of a `foreach` apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runkon_client.client import Client
    from runkon_client.values import Run


class Lineage:
    """The items above runs, each looked up once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._above: dict[str, tuple[str, ...]] = {}
        self._labels: dict[str, str] = {}

    async def above(self, run_id: str) -> tuple[str, ...]:
        """The items that led to a run, outermost first, such as `foreach:each[1]/A-1`.

        Empty for a run that no `foreach` has to do with.

        Raises:
            RunkonClientError: the run cannot be read.
        """
        if run_id not in self._above:
            run = await self._client.get_run(run_id)
            above: tuple[str, ...] = ()
            if run.parent_workflow_run_id:
                above = await self.above(run.parent_workflow_run_id)
            if run.fan_out_item_id:
                above = (*above, await self._label(run))
            self._above[run_id] = above
        return self._above[run_id]

    async def _label(self, run: Run) -> str:
        if run.fan_out_item_id not in self._labels:
            parent = self._client.run(run.parent_workflow_run_id)
            step = await parent.get_step(run.parent_step_id)
            place = place_of(step.step_name, step.iterations)
            async for item in parent.items(step.id):
                self._labels[item.id] = f"{place}/{identity(item.item_type, item.item_id)}"
        return self._labels[run.fan_out_item_id]


def place_of(step_name: str, iterations: tuple[int, ...]) -> str:
    """A step with the passes of the loops around it, such as `review[0][2]`."""
    return step_name + "".join(f"[{each}]" for each in iterations)


def identity(item_type: str, item_id: str) -> str:
    """What makes an item unique in its step."""
    return f"{item_type}:{item_id}" if item_type else item_id
