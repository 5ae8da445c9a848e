"""Dismissing and deleting runs that have ended: short transactions, beside the committer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runkon_server.core.standstill import ENDED
from runkon_server.errors import RunStateError
from runkon_server.store.database import fetch
from runkon_server.store.locking import NewRequest
from runkon_server.store.purging import delete_tree, purge_half_gone
from runkon_server.store.reads.runs import refusal_of_absent
from runkon_server.store.request_ids import claim_request
from runkon_server.store.transactions import in_transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["DeleteRun", "DismissRun", "RunDeleted", "RunDismissed", "delete_run", "dismiss_run"]

_LOCK = """
SELECT status FROM workflow_runs WHERE id = %(run_id)s AND namespace = %(namespace)s
FOR NO KEY UPDATE"""
_DISMISS = "UPDATE workflow_runs SET dismissed = %(dismissed)s WHERE id = %(run_id)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class DismissRun:
    """Take a run off the lists of what needs attention, or put it back."""

    namespace: str
    run_id: str
    dismissed: bool
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRun:
    """Remove a run and those below it."""

    namespace: str
    run_id: str
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class RunDismissed:
    """What became of a DismissRun."""

    replayed: bool


@dataclass(frozen=True, slots=True)
class RunDeleted:
    """What became of a DeleteRun."""

    runs: int
    replayed: bool


async def dismiss_run(reads: AsyncEngine, command: DismissRun) -> RunDismissed:
    """Set the flag.

    Raises:
        RunNotFoundError, RunPurgedError, RunStateError, RequestIdReusedError
    """
    return await in_transaction(reads, partial(_dismiss, command=command))


async def _dismiss(conn: AsyncConnection, *, command: DismissRun) -> RunDismissed:
    if not await claim_request(conn, _request(command)):
        return RunDismissed(replayed=True)
    named = {"run_id": command.run_id, "namespace": command.namespace}
    found = await fetch(conn, _LOCK, named)
    if not found:
        raise await refusal_of_absent(conn, namespace=command.namespace, run_id=command.run_id)
    if (status := found[0][0]) not in ENDED:
        raise RunStateError(command.run_id, status=status, wish="dismissed")
    parameters = {"run_id": command.run_id, "dismissed": command.dismissed}
    await conn.exec_driver_sql(_DISMISS, parameters)
    return RunDismissed(replayed=False)


async def delete_run(reads: AsyncEngine, command: DeleteRun) -> RunDeleted:
    """Remove the tree; a large one in several transactions, its root in the first.

    Raises:
        RunNotFoundError, RunIsChildError, RunStateError, RequestIdReusedError
    """
    deleted = await in_transaction(reads, partial(_delete, command=command))
    below = 0
    while deleted.runs and (more := await in_transaction(reads, _rest)):
        below += more
    return RunDeleted(deleted.runs + below, deleted.replayed)


_rest = partial(purge_half_gone, is_for_age=False)


async def _delete(conn: AsyncConnection, *, command: DeleteRun) -> RunDeleted:
    if not await claim_request(conn, _request(command)):
        return RunDeleted(0, replayed=True)
    runs = await delete_tree(conn, command.namespace, command.run_id)
    return RunDeleted(runs, replayed=False)


def _request(command: DismissRun | DeleteRun) -> NewRequest | None:
    if command.request_id is None:
        return None
    method = type(command).__name__
    response = {"run_id": command.run_id}
    return NewRequest(command.namespace, command.request_id, method, command.digest, response)
