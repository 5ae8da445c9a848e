"""Many single questions, few queries."""

from __future__ import annotations

import asyncio
import contextvars
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping

__all__ = ["Coalescer"]

_Key = TypeVar("_Key", bound="Hashable")
_Value = TypeVar("_Value")
BATCH_MAX: Final = 500
GATHER_S: Final = 0.005


class Coalescer(Generic[_Key, _Value]):
    """Asks for what many calls want at once: while one query is under way, the next ones gather.

    A question is only ever answered by a query that began after it was asked, so the answer is as
    fresh as if it had been asked alone.

    Args:
        fetch: gives the values of many keys; it may leave keys out.
        sleep: waits for so many seconds: under load, questions gather for 5 ms more. None: they do
            not, for where every millisecond counts.
        batch_max: most keys of one query.
    """

    def __init__(
        self,
        fetch: Callable[[Collection[_Key]], Awaitable[Mapping[_Key, _Value]]],
        sleep: Callable[[float], Awaitable[None]] | None,
        *,
        batch_max: int = BATCH_MAX,
    ) -> None:
        self._fetch = fetch
        self._sleep = sleep
        self._batch_max = batch_max
        self._is_shared = False
        """Whether the query before was for more than one."""
        self._asked: dict[_Key, asyncio.Future[_Value | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, key: _Key) -> _Value | None:
        """The value of a key, None if there is none; raises what the query raised."""
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_look_at)
        if self._asking is None:
            # In a context of its own: the query serves many calls and is logged as none of them.
            self._asking = asyncio.create_task(self._ask(), context=contextvars.Context())
        # A caller that goes away must not take the answer from the others.
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        try:
            while self._asked:
                if self._is_shared and self._sleep is not None:
                    # A query costs 1 ms and one more key in it 0.04 ms, so where many ask it pays
                    # to let them gather. Who asks alone never waits.
                    await self._sleep(GATHER_S)
                keys = list(islice(self._asked, self._batch_max))
                self._is_shared = len(keys) > 1
                answers = {key: self._asked.pop(key) for key in keys}
                try:
                    found = await self._fetch(keys)
                except BaseException as error:
                    for answer in answers.values():
                        answer.set_exception(
                            error if isinstance(error, Exception) else asyncio.CancelledError()
                        )
                    if not isinstance(error, Exception):
                        raise
                else:
                    for key, answer in answers.items():
                        answer.set_result(found.get(key))
        finally:
            self._asking = None


def _look_at(answer: asyncio.Future[_Value | None]) -> None:
    """Note that somebody saw the error: all who asked may have gone."""
    if not answer.cancelled():
        answer.exception()
