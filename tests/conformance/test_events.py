"""Statement 147, the order of events; and what stands for 148, watchers that go away."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from runkon.v1 import runs_pb2, runs_pb2_grpc
from support.replicas import read
from support.stage_live import LiveStage

if TYPE_CHECKING:
    from conformance.conftest import Served
    from support.stage import Stage


async def test_147_the_events_of_one_call_come_in_order(stage: Stage) -> None:
    await stage.start("call a")
    await stage.complete("a")

    assert await stage.end() == "completed"
    assert await stage.kinds() == [
        "run_started", "step_started", "step_completed", "metrics_updated", "run_finished",
    ]  # fmt: skip


async def test_a_watcher_that_breaks_off_disturbs_neither_the_run_nor_the_others(
    served: Served,
) -> None:
    """Of three streams one is cancelled in the middle; the others get every event, in order."""
    namespace = f"watched-{uuid.uuid4().hex[:8]}"
    async with LiveStage(served.channel, served.database, namespace) as stage:
        await stage.start("call a call b")
        runs = runs_pb2_grpc.RunServiceStub(served.channel)
        request = runs_pb2.StreamRunEventsRequest(namespace=namespace, run_id=stage.run_id)
        first, broken, last = (runs.StreamRunEvents(request) for _ in range(3))
        frame = await read(broken)
        assert frame.WhichOneof("frame") == "header"
        broken.cancel()
        await stage.complete("a", "b")

        assert await stage.end() == "completed"
        seqs = list(range(1, len(await stage.kinds()) + 1))
        assert await _seqs(first) == seqs
        assert await _seqs(last) == seqs


async def _seqs(stream: Any) -> list[int]:
    """The numbers of all events of a stream, to its end."""
    return [event.seq async for frame in stream for event in frame.events.events]
