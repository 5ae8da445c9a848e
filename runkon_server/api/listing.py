"""ListRuns and CountRuns: the filter read, the runs found, as many as fit a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.api.parsing.checks import namespace_of, page_rows
from runkon_server.api.places import find_places
from runkon_server.api.render import render_run
from runkon_server.core.filter_parsing import parse_filter
from runkon_server.core.filters import EVERYTHING
from runkon_server.store.reads import runs
from runkon_server.store.reads.finding import RunQuery, count_runs, find_ids
from runkon_server.store.rows import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.page_tokens import PageTokens
    from runkon_server.api.render.runs import Place
    from runkon_server.store.rows import RunRow

__all__ = ["RunLists"]

_OLDEST_FIRST: Final = "create_time"
_PAGE_BYTES: Final = 3 * 1024 * 1024
_SNAPSHOTS_AT_ONCE: Final = 16
"""Of up to 2 MB each; a page may be of 500 runs, each with a definition of its own."""


class _Reader(Protocol):
    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""


class RunLists:
    """Lists and counts runs.

    Args:
        engine: started before the first read.
        tokens: makes and reads page tokens.
    """

    def __init__(self, engine: _Reader, tokens: PageTokens) -> None:
        self._engine = engine
        self._tokens = tokens

    async def list(self, request: runs_pb2.ListRunsRequest) -> runs_pb2.ListRunsResponse:
        """A page of runs.

        Raises:
            FilterInvalidError, PageTokenInvalidError
        """
        place = await self._tokens.open(request)
        query = RunQuery(
            namespace=namespace_of(request.namespace),
            wanted=parse_filter(request.filter),
            after=place[0] if place else None,
            newest_first=request.order_by != _OLDEST_FIRST,
        )
        async with self._engine.reads.connect() as shared:
            # One moment for all statements: a run that is found is shown as it was found.
            conn = await shared.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            async with conn.begin():
                page, goes_on_after = await _find(conn, query, page_rows(request.page_size))
                places = await find_places(conn, page.rows)
                snapshots: dict[str, str] = {}
                if request.view == types_pb2.VIEW_FULL:
                    snapshots = await _read_snapshots(conn, query.namespace, page.rows)
        response = runs_pb2.ListRunsResponse()
        shown = _add_runs(response, page.rows, snapshots, places)
        if shown < len(page.rows) or page.more:
            goes_on_after = page.rows[shown - 1].id
        if goes_on_after is not None:
            response.next_page_token = await self._tokens.seal(request, [goes_on_after])
        return response

    async def count(self, request: runs_pb2.CountRunsRequest) -> runs_pb2.CountRunsResponse:
        """How many runs there are.

        Raises:
            FilterInvalidError
        """
        wanted = parse_filter(request.filter)
        query = RunQuery(namespace=namespace_of(request.namespace), wanted=wanted)
        async with self._engine.reads.connect() as conn:
            counted = await count_runs(conn, query)
        return runs_pb2.CountRunsResponse(count=counted.number, exact=counted.is_exact)


async def _find(
    conn: AsyncConnection, query: RunQuery, limit: int
) -> tuple[Page[RunRow], str | None]:
    """Runs, and where to go on if fewer were found than looked for, and yet more may follow."""
    if query.wanted == EVERYTHING:
        page = await runs.list_runs(
            conn,
            namespace=query.namespace,
            limit=limit,
            after=query.after,
            newest_first=query.newest_first,
        )
        return page, None
    found = await find_ids(conn, query, limit=limit + 1)
    ids = found.ids[:limit]
    if not ids:
        return Page([], more=False), found.examined
    page = await runs.read_page(conn, ids, newest_first=query.newest_first)
    if len(found.ids) > limit:
        return Page(page.rows, more=True), None
    return page, found.examined


async def _read_snapshots(
    conn: AsyncConnection, namespace: str, rows: Sequence[RunRow]
) -> dict[str, str]:
    """The definitions of the first rows, by their hash: of all those that fit a message."""
    hashes = list(dict.fromkeys(row.content_hash for row in rows))
    found: dict[str, str] = {}
    for at in range(0, len(hashes), _SNAPSHOTS_AT_ONCE):
        some = hashes[at : at + _SNAPSHOTS_AT_ONCE]
        found |= await runs.snapshots(conn, namespace=namespace, content_hashes=some)
        if sum(map(len, found.values())) > _PAGE_BYTES:
            break
    return found


def _add_runs(
    response: runs_pb2.ListRunsResponse,
    rows: Sequence[RunRow],
    snapshots: dict[str, str],
    places: dict[str, Place],
) -> int:
    """Add as many runs as fit a message, at least one of those there are; gives their number."""
    size = 0
    for shown, row in enumerate(rows):
        snapshot = snapshots.get(row.content_hash, "")
        run = render_run(row, snapshot=snapshot, place=places.get(row.id))
        size += run.ByteSize()
        if size > _PAGE_BYTES and shown:
            return shown
        response.runs.append(run)
    return len(rows)
