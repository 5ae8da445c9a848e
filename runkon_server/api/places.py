"""Where runs are: down into the child runs that they wait for, and up to their roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.api.render.runs import Place
from runkon_server.store.reads.chains import DEPTH_MAX, chains
from runkon_server.store.reads.runs import runs_by_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.rows import RunRow

__all__ = ["find_places", "is_in_a_tree"]

_WITH_CHILDREN: Final = ("workflow:", "foreach:")
"""How names of steps begin that have runs below them."""


class _Ancestor(NamedTuple):
    workflow_name: str
    parent_id: str | None


def is_in_a_tree(row: RunRow) -> bool:
    """Whether a live run may have others above or below it, so that its row does not say all."""
    return row.current_step is not None and (
        row.parent_workflow_run_id is not None or row.current_step[0].startswith(_WITH_CHILDREN)
    )


async def find_places(conn: AsyncConnection, rows: Sequence[RunRow]) -> dict[str, Place]:
    """Where each of these runs is; one whose row says all of it is left out, and costs nothing."""
    live = [row for row in rows if is_in_a_tree(row)]
    above = await _ancestors(conn, live)
    places = {row.id: _own_place(row, above) for row in live}
    parents = [row.id for row in live if _place_name(row).startswith(_WITH_CHILDREN)]
    if parents:
        for run_id, chain in (await chains(conn, parents)).items():
            *upper, _ = places[run_id].workflow_names
            names = (*upper, *chain.workflow_names)
            places[run_id] = Place(chain.run_id, chain.step_name, chain.iteration, names)
    return places


def _place_name(row: RunRow) -> str:
    return "" if row.current_step is None else row.current_step[0]


def _own_place(row: RunRow, above: dict[str, _Ancestor]) -> Place:
    assert row.current_step is not None
    names = [row.workflow_name]
    parent_id = row.parent_workflow_run_id
    while parent_id is not None and parent_id in above:
        names.append(above[parent_id].workflow_name)
        parent_id = above[parent_id].parent_id
    return Place(row.id, *row.current_step, tuple(reversed(names)))


async def _ancestors(conn: AsyncConnection, rows: Sequence[RunRow]) -> dict[str, _Ancestor]:
    """The runs above these, level by level."""
    found: dict[str, _Ancestor] = {}
    wanted = {row.parent_workflow_run_id for row in rows} - {None}
    for _ in range(DEPTH_MAX):
        missing = [run_id for run_id in wanted if run_id is not None and run_id not in found]
        if not missing:
            break
        parents = (await runs_by_id(conn, missing)).values()
        found |= {
            row.id: _Ancestor(row.workflow_name, row.parent_workflow_run_id) for row in parents
        }
        wanted = {row.parent_workflow_run_id for row in parents} - {None}
    return found
