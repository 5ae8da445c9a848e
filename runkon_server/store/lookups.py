"""Small reads that commands need before they can be decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server import errors

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_RUN_OF_KEY = "SELECT run_id FROM run_keys WHERE namespace = %(namespace)s AND key = %(key)s"

_RUN_EXISTS = "SELECT 1 FROM workflow_runs WHERE namespace = %(namespace)s AND id = %(run_id)s"

_GATE = """
SELECT id FROM gates
WHERE run_id = %(run_id)s AND namespace = %(namespace)s AND name = %(name)s
ORDER BY (state = 'pending') DESC, opened_at DESC, id DESC LIMIT 1"""


async def find_gate(
    conn: AsyncConnection,
    *,
    namespace: str,
    run_id: str | None,
    key: str | None,
    gate_name: str,
) -> str:
    """The gate of a run by its name: the pending one, else the newest.

    Raises:
        RunNotFoundError, GateNotFoundError
    """
    if run_id is None:
        found = await conn.exec_driver_sql(_RUN_OF_KEY, {"namespace": namespace, "key": key})
        run_id = found.scalar_one_or_none()
        if run_id is None:
            raise errors.RunNotFoundError(key or "")
    parameters = {"namespace": namespace, "run_id": run_id, "name": gate_name}
    gate_id: str | None = (await conn.exec_driver_sql(_GATE, parameters)).scalar_one_or_none()
    if gate_id is not None:
        return gate_id
    if (await conn.exec_driver_sql(_RUN_EXISTS, parameters)).first() is None:
        raise errors.RunNotFoundError(run_id)
    raise errors.GateNotFoundError(gate_name)
