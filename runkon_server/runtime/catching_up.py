"""Facts that other replicas have stored for runs of this one, read for many runs at once.

While one query is under way, the runs that are told of meanwhile gather for the next. A query for
each would keep all connections busy as soon as workers report to another replica than the owner.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from runkon_server.failpoints import failpoint_async
from runkon_server.runtime.actors import Offer
from runkon_server.store.database import is_passing
from runkon_server.store.loading import load_facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.actors import Actor

RUNS_MAX: Final = 200
"""Of one query."""


class FactReader:
    """Has actors go on with what others have stored for them.

    Args:
        spawn: runs a coroutine in the background.
        pause: waits a moment.
        set_aside: gives up a run with a fact that nobody here understands.
    """

    def __init__(
        self,
        reads: AsyncEngine,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        pause: Callable[[], Awaitable[None]],
        set_aside: Callable[[str, Exception], Awaitable[None]],
    ) -> None:
        self._reads = reads
        self._spawn = spawn
        self._pause = pause
        self._set_aside = set_aside
        self._behind: dict[str, Actor] = {}
        self._is_reading = False

    def catch_up(self, actor: Actor) -> None:
        """Read what is stored for a run, in a query that begins after this call."""
        self._behind[actor.run_id] = actor
        if not self._is_reading:
            self._is_reading = True
            self._spawn(self._read_all())

    async def _read_all(self) -> None:
        try:
            while self._behind:
                actors = dict(islice(self._behind.items(), RUNS_MAX))
                for run_id in actors:
                    del self._behind[run_id]
                await self._read(actors)
        finally:
            self._is_reading = False

    async def _read(self, actors: Mapping[str, Actor]) -> None:
        try:
            async with self._reads.connect() as conn:
                facts = await load_facts(conn, list(actors))
            await failpoint_async("facts.read")
        except Exception as error:  # noqa: BLE001 - told in the log by `set_aside`
            if is_passing(error):  # the scan tells of them again
                await self._pause()
                facts = {}
            elif len(actors) > 1:  # one of them has a fact that nobody here understands
                for run_id, actor in actors.items():
                    await self._read({run_id: actor})
                return
            else:
                await self._set_aside(next(iter(actors)), error)
                return
        for run_id, actor in actors.items():
            stored = facts.get(run_id, ())
            actor.pending += [Offer(each.fact, fact_seq=each.fact_seq) for each in stored]
            actor.move()
