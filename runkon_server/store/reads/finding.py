"""Finding runs by a filter, with bounded effort whatever the filter and however many runs.

A call walks along one index in the order of creation, over at most so many runs, and checks each
against the rest of the filter. Where the walk was too short to fill a page, the caller goes on from
where it ended: a page may be short, even empty, and yet not the last (ADR-0016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.core.filters import EVERYTHING
from runkon_server.store.reads.walking import PROBED, plan_walks

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.filters import Filter
    from runkon_server.store.reads.walking import Walk, Walks

EXAMINED_MAX: Final = 2_500
"""Runs that a page looks at."""
COUNTED_MAX: Final = 100_000
"""Runs that a count looks at."""


class FoundIds(NamedTuple):
    """Ids of runs in their order, and the last run that was looked at if others may follow it."""

    ids: list[str]
    examined: str | None


class Counted(NamedTuple):
    """How many runs were found, and whether all were looked at."""

    number: int
    is_exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs of a namespace, from where on, in which order."""

    namespace: str
    wanted: Filter = EVERYTHING
    after: str | None = None
    newest_first: bool = True

    def walks(self, examine: int) -> Walks:
        """The ways to them that look at so many runs at most."""
        return plan_walks(
            self.wanted,
            newest_first=self.newest_first,
            goes_on=self.after is not None,
            examine=examine,
        )

    def parameters(self) -> dict[str, str | None]:
        """What the statements of its walks are to be given."""
        return {"namespace": self.namespace, "after": self.after}


async def find_ids(
    conn: AsyncConnection, query: RunQuery, *, limit: int, examine: int = EXAMINED_MAX
) -> FoundIds:
    """Ids of runs that meet the filter, at most `limit`, after looking at `examine` at most."""
    walk = await _sparsest(conn, query, query.walks(examine))
    if walk is None:
        return FoundIds([], None)
    given = query.parameters()
    ids = list((await conn.execute(walk.met, {**given, "limit": limit})).scalars())
    if len(ids) == limit:
        return FoundIds(ids, ids[-1])
    return FoundIds(ids, (await conn.execute(walk.end, given)).scalar_one_or_none())


async def count_runs(
    conn: AsyncConnection, query: RunQuery, *, examine: int = COUNTED_MAX
) -> Counted:
    """How many runs meet the filter, after looking at `examine` at most, the newest."""
    walk = await _sparsest(conn, query, query.walks(examine))
    if walk is None:
        return Counted(0, is_exact=True)
    given = query.parameters()
    number: int = (await conn.execute(walk.number, given)).scalar_one()
    if number == examine:
        return Counted(number, is_exact=False)
    if walk.is_decisive:
        return Counted(number, is_exact=True)
    return Counted(number, (await conn.execute(walk.end, given)).first() is None)


async def _sparsest(conn: AsyncConnection, query: RunQuery, walks: Walks) -> Walk | None:
    """The walk that gets farthest with so many runs, or ends soonest: there, fewest are in vain.

    None: no run can meet the filter.
    """
    if walks.probe is None:
        return walks.walks[0] if walks.walks else None
    found = (await conn.execute(walks.probe, query.parameters())).one()
    seen = list(zip(found[0::2], found[1::2], walks.walks, strict=True))
    ended = [each for each in seen if each[0] < PROBED]
    if ended:
        return min(ended, key=lambda each: each[0])[2]
    farthest = min if query.newest_first else max
    return farthest(seen, key=lambda each: each[1])[2]
