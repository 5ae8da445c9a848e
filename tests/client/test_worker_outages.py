"""What a worker without a server logs: the first failure, a line now and then, its end once."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from client.peers import WorkPeer, serve
from client.workers import one_action

from runkon_client import Worker
from runkon_client.worker import outage
from runkon_client.worker.outage import AGAIN_S, AGAIN_S_MAX, Outage
from runkon_server.verify.ports import kept_port
from support.waiting import until

if TYPE_CHECKING:
    import pytest

LOGGER = "runkon_client.worker"


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what the worker said, without what only debugging shows."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == LOGGER and record.levelno > logging.DEBUG
    ]


def attempts(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "no stream" in record.getMessage()]


def test_a_day_without_a_server_makes_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """An attempt every five seconds; the pauses between lines double up to the longest."""
    now = 0.0
    away = Outage("host:7411", lambda: now)
    with caplog.at_level(logging.INFO, LOGGER):
        while now < 86_400:
            away.failed("UNAVAILABLE")
            now += 5.0
        away.welcomed("r1")
        away.failed("gone")
    lines = told(caplog)

    assert lines[0] == ("WARNING", "no stream to host:7411, trying again: UNAVAILABLE")
    assert lines[1] == ("WARNING", f"no stream to host:7411 for {AGAIN_S:.0f} s: UNAVAILABLE")
    assert len(lines) < 10 + 86_400 / AGAIN_S_MAX
    assert lines[-2] == (
        "INFO", "worker welcomed by replica r1, after 86400.0 s without a stream"
    )  # fmt: skip
    assert lines[-1] == ("WARNING", "no stream to host:7411, trying again: gone")


async def test_an_outage_is_told_once_and_its_end_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens until the worker has failed several times, however long that takes."""
    monkeypatch.setattr(outage, "AGAIN_S", math.inf)
    with kept_port() as port, caplog.at_level(logging.DEBUG, LOGGER):
        address = f"127.0.0.1:{port}"
        worker = Worker(address, worker_id="w1", actions=one_action(lambda _: "done"))
        running = asyncio.create_task(worker.run())
        await until(lambda: len(attempts(caplog)) >= 3, "it has failed three times")
        work = WorkPeer()
        async with serve(work=work, address=address):
            await work.next_stream()
            worker.stop()
            await running

    assert [level for level, _ in told(caplog)] == ["WARNING", "INFO"]
    assert "without a stream" in told(caplog)[-1][1]
