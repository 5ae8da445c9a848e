"""Loops of a replica that is stopped end, whatever happens in that moment."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.dispatcher import Dispatcher
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.stats import EngineStats

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


@pytest.mark.parametrize("turns", range(4))
async def test_a_stop_that_meets_a_wish_for_claims_is_not_lost(turns: int) -> None:
    """So many turns of the loop after the wish; `wait_for` of Python 3.11 went on for ever."""
    config = EngineConfig(dsn=NOWHERE)
    reads = create_async_engine(NOWHERE)
    dispatcher = Dispatcher(config, SystemAmbient(), reads, EngineStats())
    claims = asyncio.create_task(dispatcher.run_claims())
    await asyncio.sleep(0.01)  # it waits, and nothing outside shows that it does
    dispatcher.look()
    for _ in range(turns):
        await asyncio.sleep(0)
    claims.cancel()
    done, _ = await asyncio.wait([claims], timeout=60)
    claims.cancel()  # a loop that lost the first one must not outlive the test
    await reads.dispose()

    assert done == {claims}
