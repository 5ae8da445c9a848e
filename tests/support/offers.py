"""Workers of every kind without a wire, and workflows that are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runkon_server.core.facts import GateDecided, GateDecision, GatePolled, ItemsCollected
from runkon_server.runtime.commands import TaskReport, WorkerHello
from runkon_server.store.transactions import in_transaction
from runkon_server.store.workflows import NewVersion, put_version
from support.engines import NAMESPACE, Worker, pinned

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.facts import Item
    from runkon_server.runtime.commands import TaskLease
    from runkon_server.runtime.engine import Engine


async def stored(engine: Engine, name: str, body: str, **texts: dict[str, str]) -> None:
    """Store a workflow of these contents as the newest version of its name.

    Args:
        texts: `output_schemas` and `snippets`.
    """
    made = pinned(body, name)

    async def put(conn: AsyncConnection) -> tuple[int, bool]:
        version = NewVersion(
            namespace=NAMESPACE,
            name=name,
            content_hash=made.content_hash,
            title=None,
            description="",
            source=body,
            snapshot=made.snapshot,
            created_by="author",
            output_schemas=texts.get("output_schemas", {}),
            snippets=texts.get("snippets", {}),
        )
        return await put_version(conn, version)

    await in_transaction(engine.reads, put)


class Specialist(Worker):
    """A worker session with offers beside actions, whose tasks the test answers itself."""

    def __init__(
        self,
        engine: Engine,
        *actions: str,
        providers: tuple[str, ...] = (),
        gates: tuple[str, ...] = (),
        scripts: bool = False,
    ) -> None:
        super().__init__(engine, *actions)
        self.session.close()
        hello = WorkerHello(
            namespace=NAMESPACE,
            worker_id=f"{self.session.worker_id}-special",
            actions=frozenset(actions),
            item_providers=frozenset(providers),
            gate_types=frozenset(gates),
            scripts=scripts,
        )
        self.session = engine.open_session(hello, self._notified)

    def found(self, lease: TaskLease, *items: Item) -> None:
        """Report items."""
        fact = ItemsCollected(task_id=lease.task_id, items=items)
        self.session.report([TaskReport(token=lease.token, fact=fact, digest="d")])

    def looked(self, lease: TaskLease, decision: GateDecision | None = None, **fields: Any) -> None:
        """Report a look at a gate; without a decision it is still pending."""
        decided = None
        if decision is not None:
            gate_id = lease.task_id.rpartition("#")[0]
            decided = GateDecided(gate_id=gate_id, decision=decision, decided_by="bot", **fields)
        fact = GatePolled(task_id=lease.task_id, delay_s=0.01, note="not yet")
        report = TaskReport(token=lease.token, fact=fact, digest="d", gate_decision=decided)
        self.session.report([report])


def foreach(
    count: int | None = None, *, options: str = "", workflow: str = "each"
) -> dict[str, Any]:
    """Fields for `start`: a `foreach` over a list of so many numbers, 8 at a time."""
    body = (
        "inputs { numbers required }"
        ' foreach f { over = list scope = { items = "{{numbers}}" } max_parallel = 8'
        f' workflow = {workflow} inputs = {{ n = "{{{{item.id}}}}" }} {options} }}'
    )
    numbers = json.dumps([str(number) for number in range(count or 0)])
    return {"body": body, "inputs": {"numbers": numbers}}
