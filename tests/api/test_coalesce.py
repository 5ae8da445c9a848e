"""Sharing queries: fresh answers, few queries, and nobody takes another's answer away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runkon_server.api.coalesce import BATCH_MAX, GATHER_S, Coalescer
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Collection


class Table:
    """Something to ask, whose queries end when the test says so."""

    def __init__(self) -> None:
        self.queries: list[list[int]] = []
        self.values = {1: "one", 2: "two"}
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None

    async def fetch(self, keys: Collection[int]) -> dict[int, str]:
        self.queries.append(sorted(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return found

    async def has_queries(self, number: int) -> bool:
        return len(self.queries) == number


async def test_what_is_asked_during_a_query_gathers_for_the_next() -> None:
    """One asks, the query begins; five more ask, twice the same: two queries in all."""
    table = Table()
    questions = Coalescer(table.fetch, asyncio.sleep)
    first = asyncio.create_task(questions.get(1))
    await eventually(lambda: table.has_queries(1), "the first query")
    others = [asyncio.create_task(questions.get(key)) for key in (2, 2, 3, 1, 2)]
    await asyncio.sleep(0)
    table.may_answer.set()

    assert await first == "one"
    assert await asyncio.gather(*others) == ["two", "two", None, "one", "two"]
    assert table.queries == [[1], [1, 2, 3]]


async def test_an_answer_is_never_older_than_its_question() -> None:
    """The value changes while a query is under way: who asks then sees the new one."""
    table = Table()
    questions = Coalescer(table.fetch, asyncio.sleep)
    before = asyncio.create_task(questions.get(1))
    await eventually(lambda: table.has_queries(1), "the first query")
    table.values[1] = "changed"
    after = asyncio.create_task(questions.get(1))
    await asyncio.sleep(0)
    table.may_answer.set()

    assert (await before, await after) == ("one", "changed")


async def test_one_who_goes_away_leaves_the_answer_to_the_others() -> None:
    table = Table()
    questions = Coalescer(table.fetch, asyncio.sleep)
    gone = asyncio.create_task(questions.get(1))
    stays = asyncio.create_task(questions.get(1))
    await eventually(lambda: table.has_queries(1), "the query")
    gone.cancel()
    table.may_answer.set()

    assert await stays == "one"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_an_error_reaches_all_who_asked_and_the_next_query_is_tried() -> None:
    table = Table()
    table.error = ValueError("away")
    table.may_answer.set()
    questions = Coalescer(table.fetch, asyncio.sleep)
    for error in await asyncio.gather(questions.get(1), questions.get(2), return_exceptions=True):
        assert isinstance(error, ValueError)
    table.error = None

    assert await questions.get(1) == "one"


async def test_a_query_has_a_greatest_size() -> None:
    table = Table()
    table.may_answer.set()
    questions = Coalescer(table.fetch, asyncio.sleep)

    await asyncio.gather(*(questions.get(key) for key in range(BATCH_MAX + 1)))

    assert [len(keys) for keys in table.queries] == [BATCH_MAX, 1]


async def test_where_every_millisecond_counts_nobody_waits_for_more() -> None:
    """Without a sleep: three at once, in queries of two, and three again."""
    table = Table()
    table.may_answer.set()
    questions = Coalescer(table.fetch, None, batch_max=2)

    for _ in range(2):
        assert await asyncio.gather(*map(questions.get, (1, 2, 3))) == ["one", "two", None]

    assert table.queries == [[1, 2], [3], [1, 2], [3]]


async def test_only_those_who_ask_together_wait_for_more() -> None:
    """Alone twice, then two at once, then alone again: the pause follows the shared query only."""
    table = Table()
    table.may_answer.set()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    questions = Coalescer(table.fetch, sleep)
    await questions.get(1)
    await questions.get(1)
    assert pauses == []
    await asyncio.gather(questions.get(1), questions.get(2))
    await questions.get(1)
    await questions.get(1)

    assert pauses == [GATHER_S]
