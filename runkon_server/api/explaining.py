"""ExplainRun: how a run and its children stand, read at one moment, told as a tree."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, Protocol

from runkon.v1 import explanations_pb2, workers_pb2
from runkon_server.api.places import find_places
from runkon_server.api.render import render_gate, render_run
from runkon_server.api.render.admin import render_limit
from runkon_server.api.render.runs import run_status
from runkon_server.api.render.values import timestamp
from runkon_server.core.standstill import (
    ENDED,
    BlockerKind,
    find_blockers,
    headline,
    replica_name,
)
from runkon_server.errors import DslUnsupportedError
from runkon_server.store.loading import load_definition
from runkon_server.store.queues import DEFAULT_QUEUE, display_queue
from runkon_server.store.reads.chains import DEPTH_MAX
from runkon_server.store.reads.gates import GateQuery, list_gates
from runkon_server.store.reads.runs import run_by_id, runs_by_id
from runkon_server.store.reads.standing import read_standings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.definitions import Definitions
    from runkon_server.core.standstill import Blocker, Standing
    from runkon_server.store.reads.standing import FoundStanding
    from runkon_server.store.rows import GateRow

__all__ = ["Explainer"]

BLOCKERS_MAX: Final = 50
"""Of one run."""
EXPLAINED_MAX: Final = 200
"""Runs of one tree that are explained."""
_GATES_MAX: Final = 20


class _Engine(Protocol):
    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""

    def does_itself(self, namespace: str, kind: str, action: str) -> bool:
        """Whether the replica does such tasks without a worker."""


class Explainer:
    """Says why runs are not moving.

    Args:
        engine: started before the first call.
        definitions: knows which stored definitions can be loaded.
    """

    def __init__(self, engine: _Engine, definitions: Definitions) -> None:
        self._engine = engine
        self._definitions = definitions

    async def explain(self, namespace: str, run_id: str) -> explanations_pb2.Explanation:
        """Why this run is not moving.

        Raises:
            RunNotFoundError: the namespace has no such run.
            RunPurgedError: it had one, which was removed.
        """
        async with self._engine.reads.connect() as shared:
            conn = await shared.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            async with conn.begin():
                run = await run_by_id(conn, namespace=namespace, run_id=run_id)
                place = (await find_places(conn, [run])).get(run_id)
                tree = _Tree(namespace)
                await self._read(conn, namespace, run_id, tree)
        explanation = tree.render(run_id)
        shown = render_run(run, place=place)
        if shown.HasField("current_step"):
            explanation.current_step.CopyFrom(shown.current_step)
        return explanation

    async def _read(self, conn: AsyncConnection, namespace: str, run_id: str, tree: _Tree) -> None:
        """The run and those below it, level by level."""
        level: Sequence[str] = [run_id]
        for _ in range(DEPTH_MAX + 1):
            gates = await _pending_gates(conn, namespace, level)
            found = await read_standings(conn, level, gates, self._engine.does_itself)
            for each in found.values():
                problem = await self._problem(conn, each)
                standing = replace(each.standing, definition_problem=problem)
                tree.add(replace(each, standing=standing), gates.get(standing.run_id, ()))
            room = EXPLAINED_MAX - len(tree.standings)
            below = [c.run_id for each in found.values() for c in each.standing.children]
            level = below[:room]
            if not level:
                return

    async def _problem(self, conn: AsyncConnection, found: FoundStanding) -> str | None:
        """Why the definition of a live run cannot be loaded; None if it can."""
        known = self._definitions.known(found.content_hash)
        if found.standing.status in ENDED or known is not None:
            return None
        stored = await load_definition(conn, found.namespace, found.content_hash)
        if stored is None:
            return "it is gone from the database"
        try:
            await self._definitions.load(found.content_hash, stored)
        except DslUnsupportedError as error:
            return error.message
        return None


async def _pending_gates(
    conn: AsyncConnection, namespace: str, run_ids: Sequence[str]
) -> dict[str, list[GateRow]]:
    """By run; most runs have none, and one has seldom more than one."""
    wanted = [row.id for row in (await runs_by_id(conn, run_ids)).values() if row.ended_at is None]
    found: dict[str, list[GateRow]] = defaultdict(list)
    for run_id in wanted:
        query = GateQuery(namespace=namespace, run_id=run_id, state="pending")
        found[run_id] += (await list_gates(conn, query, limit=_GATES_MAX)).rows
    return found


class _Tree:
    """The runs that were read, by their ids, with what their blockers refer to."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.standings: dict[str, Standing] = {}
        self._left_out: dict[str, int] = {}
        self._queues: dict[str, str] = {}
        self._gates: dict[str, GateRow] = {}

    def add(self, found: FoundStanding, gates: Sequence[GateRow]) -> None:
        run_id = found.standing.run_id
        self.standings[run_id] = found.standing
        self._left_out[run_id] = found.children_left_out
        self._queues |= found.queues
        self._gates |= {gate.id: gate for gate in gates}

    def render(self, run_id: str) -> explanations_pb2.Explanation:
        standing = self.standings[run_id]
        blockers = [self._in_queue(each) for each in find_blockers(standing)]
        shown = blockers[:BLOCKERS_MAX]
        return explanations_pb2.Explanation(
            run_id=run_id,
            workflow_name=standing.workflow_name,
            status=run_status(standing.status),
            headline=headline(standing, blockers),
            blockers=[self._blocker(standing, each) for each in shown],
            blockers_left_out=len(blockers) - len(shown) + self._left_out[run_id],
            time=timestamp(standing.now),
        )

    def _in_queue(self, blocker: Blocker) -> Blocker:
        """Say which workers count, where that is not all of them."""
        queue = self._queues.get(blocker.subject, DEFAULT_QUEUE)
        if blocker.kind is not BlockerKind.QUEUED_TASK or queue == DEFAULT_QUEUE:
            return blocker
        remedy = blocker.remedy and f"{blocker.remedy}, with --queue {quote(queue)}"
        return replace(blocker, text=f"in queue `{queue}`, {blocker.text}", remedy=remedy)

    def _blocker(self, standing: Standing, blocker: Blocker) -> explanations_pb2.Blocker:
        return explanations_pb2.Blocker(
            kind=explanations_pb2.BlockerKind.Value(f"BLOCKER_KIND_{blocker.kind.name}"),
            text=blocker.text,
            remedy=blocker.remedy,
            needs_action=blocker.needs_action,
            step_id=blocker.step_id,
            step_name=blocker.step_name,
            since_time=timestamp(blocker.since),
            until_time=timestamp(blocker.until),
            **self._details(standing, blocker),
        )

    def _details(self, standing: Standing, blocker: Blocker) -> dict[str, Any]:
        match blocker.kind:
            case BlockerKind.GATE:
                return {"gate": render_gate(self._gates[blocker.subject])}
            case BlockerKind.QUEUED_TASK | BlockerKind.LEASED_TASK | BlockerKind.LIMITED:
                return {"task": self._task(standing, blocker.subject)}
            case BlockerKind.CHILD_RUN if blocker.subject in self.standings:
                return {"child": self.render(blocker.subject)}
            case BlockerKind.LOST_OWNER | BlockerKind.UNAPPLIED_FACTS:
                assert standing.owner_token is not None
                owner = explanations_pb2.BlockingOwner(
                    replica=replica_name(standing.owner_token),
                    alive=standing.is_owner_alive,
                    lease_end_time=timestamp(standing.lease_until),
                )
                return {"owner": owner}
            case _:
                return {}

    def _task(self, standing: Standing, task_id: str) -> explanations_pb2.BlockingTask:
        task = next(each for each in standing.tasks if each.id == task_id)
        kind = workers_pb2.TaskKind.Value(f"TASK_KIND_{task.kind.upper()}")
        limit = None if task.limit is None else render_limit(self._namespace, task.limit)
        return explanations_pb2.BlockingTask(
            task_id=task.id,
            kind=kind,
            action=task.action,
            attempt=task.attempt,
            delivery=task.delivery,
            queue_position=task.queue_position,
            workers=task.workers,
            last_worker_time=timestamp(task.last_worker_at),
            worker_id=task.worker_id or "",
            queue=display_queue(self._queues[task_id]),
            limit=limit,
            earliest_time=timestamp(task.earliest_at(standing.now)),
        )
