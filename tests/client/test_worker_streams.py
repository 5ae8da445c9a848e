"""A worker over the streams it goes through: breaks, acks, drains, its own end."""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import pytest
from client.peers import Drop, WorkPeer, serve
from client.workers import one_action, working

from runkon.v1 import workers_pb2
from runkon_client import (
    InvalidArgumentError,
    Task,
    Worker,
)
from runkon_client.worker import CancelReason
from runkon_server.verify.ports import kept_port


async def test_reports_without_an_ack_are_sent_again_on_the_next_stream() -> None:
    """Acked ones are not; tasks in hand go on over the break and are kept by a heartbeat."""
    may_end = asyncio.Event()
    started: list[str] = []

    async def act(task: Task) -> str:
        started.append(task.id)
        if task.id == "long":
            await may_end.wait()
        return task.id

    async with working(one_action(act)) as (_, work, _running):
        first = await work.next_stream()
        first.lease("acked", "lost", "long")
        by_id = {report.task_id: report for report in await first.reports(2)}
        first.ack(by_id["acked"])
        first.lease("marker", action="?")
        first.ack(await first.next_report())
        first.drop()
        second = await work.next_stream()
        report = await second.next_report()
        beaten = {beat.token for frame in second.frames for beat in frame.heartbeats}
        may_end.set()
        last = await second.next_report()

    assert report == by_id["lost"]
    assert "long/0" in beaten
    assert last.result.result_text == "long"
    assert second.frames[0].credit == 3, "one task is in hand"
    assert sorted(started) == ["acked", "long", "lost"]


async def test_a_stale_report_is_dropped() -> None:
    """Refused for good, or for content: the first is forgotten, the second said in other words."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        stream = await work.next_stream()
        stream.lease("stale", "bad", "away")
        reports = {report.task_id: report for report in await stream.reports(3)}
        stream.ack(reports["stale"], status=workers_pb2.ACK_STATUS_STALE, code=9)
        stream.ack(reports["bad"], status=workers_pb2.ACK_STATUS_REFUSED, code=3)
        stream.ack(reports["away"], status=workers_pb2.ACK_STATUS_REFUSED, code=14)
        again = {report.task_id: report for report in await stream.reports(2)}
        stream.ack(again["bad"], status=workers_pb2.ACK_STATUS_REFUSED, code=3)
        stream.ack(again["away"])
        stream.lease("marker", action="?")
        marker = await stream.next_report()

    assert again["away"] == reports["away"]
    assert again["bad"].failure.code == "REPORT_REFUSED"
    assert "refused by the script" in again["bad"].failure.message
    assert marker.task_id == "marker"


async def test_a_stop_finishes_what_is_in_hand() -> None:
    """Drain is said, no credit is given, the report is delivered, then the stream is closed."""
    may_end = asyncio.Event()
    started = asyncio.Event()

    async def act(task: Task) -> str:
        started.set()
        await may_end.wait()
        return "finished"

    async with working(one_action(act)) as (worker, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        worker.stop()
        worker.stop()
        while not (frame := await stream.next_frame()).HasField("drain"):
            pass
        may_end.set()
        report = await stream.next_report()
        stream.ack(report)
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(60):
            await running

    assert report.result.result_text == "finished"
    assert frame.credit == 0
    assert stream.credit == 4
    assert sum(frame.HasField("drain") for frame in stream.frames) == 1


async def test_a_stop_during_a_break_still_delivers() -> None:
    """The report goes out on a stream that is opened only after the stop."""
    started = asyncio.Event()
    may_end = asyncio.Event()

    async def act(task: Task) -> str:
        started.set()
        await may_end.wait()
        return "finished"

    async with working(one_action(act)) as (worker, work, running):
        first = await work.next_stream()
        first.lease("t")
        await started.wait()
        first.drop()
        worker.stop()
        may_end.set()
        second = await work.next_stream()
        report = await second.next_report()
        second.ack(report)
        assert await second.is_closed_by_worker()
        second.outgoing.put_nowait(None)
        async with asyncio.timeout(60):
            await running

    assert report.result.result_text == "finished"
    assert second.frames[0].HasField("drain")
    assert second.credit == 0


async def test_what_is_not_finished_in_time_is_left_to_others() -> None:
    """No report: unasked it would count as a failure, while a lease just runs out."""
    reasons: list[CancelReason | None] = []
    started = asyncio.Event()

    async def act(task: Task) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(task.cancel_reason)

    async with working(one_action(act), grace_s=0.05) as (worker, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        worker.stop()
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(60):
            await running

    assert reasons == [CancelReason.WORKER_STOPPED]
    assert not [report for frame in stream.frames for report in frame.reports]


async def test_a_replica_that_drains_is_left() -> None:
    """The worker waits as asked, then goes on elsewhere; reports in flight are acked first."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        first = await work.next_stream()
        first.lease("t")
        report = await first.next_report()
        drain = workers_pb2.ServerDrain()
        drain.grace.FromSeconds(10)
        drain.reconnect_delay.FromMilliseconds(10)
        first.send(drain=drain)
        first.ack(report)
        second = await work.next_stream()
        second.lease("u")
        report = await second.next_report()

        assert report.task_id == "u"
        assert first.is_over


async def test_a_stream_without_a_welcome_or_acks_is_given_up() -> None:
    """Open is not alive: acks that do not come within a lease mean another stream."""
    async with working(one_action(lambda _: "said")) as (_, work, _running):
        first = await work.next_stream(lease_s=1, interval_s=0.3)
        first.lease("t")
        report = await first.next_report()
        second = await work.next_stream()

        assert await second.next_report() == report


async def test_it_reconnects_for_ever() -> None:
    """Whatever a server or a proxy says, but for a refusal of the worker itself."""
    drops = [
        Drop(),
        Drop(grpc.StatusCode.INTERNAL),
        Drop(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA", retry_after_s=0.01),
        Drop(grpc.StatusCode.UNIMPLEMENTED),
    ]
    async with working(one_action(lambda _: None)) as (_, work, _running):
        for drop in drops:
            (await work.next_stream(welcome=False)).drop(drop)
        (await work.next_stream()).outgoing.put_nowait(None)
        stream = await work.next_stream()

        assert stream.hello.worker_id == "w1"


async def test_it_waits_for_a_server_that_is_not_there() -> None:
    """Started before its server, it finds it."""
    work = WorkPeer()
    with kept_port() as port:
        address = f"127.0.0.1:{port}"
        worker = Worker(address, worker_id="early", actions=one_action(lambda _: None))
        running = asyncio.create_task(worker.run())
        try:
            done, _ = await asyncio.wait({running}, timeout=0.3)
            async with serve(work=work, address=address):
                stream = await work.next_stream()

                assert not done
                assert stream.hello.worker_id == "early"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_cancelled_worker_stops_its_actions() -> None:
    """Without a stop first: coroutines are cancelled and have cleaned up when `run` is over."""
    ended: list[CancelReason | None] = []
    started = asyncio.Event()

    async def act(task: Task) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(task.cancel_reason)

    async with working(one_action(act)) as (_, work, running):
        stream = await work.next_stream()
        stream.lease("t")
        await started.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert ended == [CancelReason.WORKER_STOPPED]


SCRIPT = """
import sys
from runkon_client import Worker

worker = Worker(sys.argv[1], worker_id="process")

@worker.action("act")
def act(task):
    return "said"

worker.run_forever()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_a_process(number: signal.Signals) -> None:
    """`run_forever` in a process of its own: it says that it drains, closes, and exits with 0."""
    work = WorkPeer()
    async with serve(work=work) as address:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, address, stdout=asyncio.subprocess.PIPE
        )
        stream = await work.next_stream()
        stream.lease("t")
        stream.ack(await stream.next_report())
        process.send_signal(number)
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        async with asyncio.timeout(60):
            output, _ = await process.communicate()

    assert process.returncode == 0
    assert output == b"ended\n"
    assert any(frame.HasField("drain") for frame in stream.frames)


async def test_a_refused_worker_ends() -> None:
    """A hello that is wrong will not get better."""
    async with working(one_action(lambda _: None)) as (_, work, running):
        stream = await work.next_stream(welcome=False)
        stream.drop(Drop(grpc.StatusCode.INVALID_ARGUMENT, reason="FIELD_INVALID"))

        with pytest.raises(InvalidArgumentError):
            await running


async def test_a_worker_is_run_once_and_by_signals_in_the_main_thread_only() -> None:
    """Of two streams with one name each takes the other's tasks, and `stop` ended the second."""
    async with working(one_action(lambda _: None)) as (worker, work, running):
        stream = await work.next_stream()
        with pytest.raises(RuntimeError, match="at work already"):
            await worker.run()
        worker.stop()
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        await running
        await worker.run()

    with pytest.raises(RuntimeError, match="main thread only: in another one use"):
        await asyncio.to_thread(Worker(actions=one_action(lambda _: None)).run_forever)
