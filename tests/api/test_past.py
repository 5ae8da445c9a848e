"""GetRun and ListSteps at a sequence: the past told from the log is what the rows then said."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from grpc import StatusCode
from sqlalchemy import event

from runkon.v1 import gates_pb2, runs_pb2, types_pb2
from runkon_server.api.past import Pasts
from runkon_server.errors import RunNotFoundError
from support.live_api import live_api, refusal
from support.live_work import Hand
from support.replicas import FakeReplica
from support.rows import NAMESPACE, add_events, add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from support.live_api import LiveApi

RUN = ulid(1)
LONG = 600
"""Events of a run: three reads."""

SOURCE = """
workflow w {
  call plan
  parallel { call a call b }
  script s { run = "true" }
  gate human_review { name = check }
  call last
  always { call plan }
}
"""
UNTOLD = ("current_step", "scheduled_time", "dismissed", "result_summary", "iteration")
"""What events do not say, and the summary, which is made anew when it is read."""


async def now(api: LiveApi, run_id: str) -> tuple[types_pb2.Run, list[types_pb2.Step]]:
    """The run and its steps, from the rows, at one sequence."""
    while True:
        run = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run
        request = runs_pb2.ListStepsRequest(run_id=run_id, page_size=500, include_superseded=True)
        steps = list((await api.runs.ListSteps(request)).steps)
        again = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run
        if again == run:
            return run, steps


async def then(api: LiveApi, run_id: str, seq: int) -> tuple[types_pb2.Run, list[types_pb2.Step]]:
    """The same from the log, two steps a page."""
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id, at_sequence=seq))).run
    steps: list[types_pb2.Step] = []
    request = runs_pb2.ListStepsRequest(run_id=run_id, at_sequence=seq, page_size=2)
    while True:
        page = await api.runs.ListSteps(request)
        steps += page.steps
        if not page.next_page_token:
            return run, steps
        request.page_token = page.next_page_token


def told(run: types_pb2.Run) -> types_pb2.Run:
    """The run without what events do not say."""
    shown = types_pb2.Run()
    shown.CopyFrom(run)
    for name in UNTOLD:
        shown.ClearField(name)  # type: ignore[arg-type] # the stub knows only literal names
    return shown


async def test_the_past_is_what_the_rows_said_then(database: str) -> None:
    """S7 over the wire: a run is driven step by step; whenever it rests, rows and log are one.

    Afterwards every one of those moments is asked for again, when the rows say something else.
    """
    moments: dict[int, tuple[types_pb2.Run, list[types_pb2.Step]]] = {}
    # The run stays in memory: of one that is parked, a report is accepted before it is applied.
    async with live_api(database, poll_s=0.1, linger_s=600.0) as api:
        start = runs_pb2.StartRunRequest(source=SOURCE)
        run_id = (await api.runs.StartRun(start)).run.id

        async def remember() -> None:
            run, steps = await now(api, run_id)
            moments[run.last_seq] = run, steps

        worker = Hand(api, actions=["*"], scripts=True)
        await remember()
        for _ in range(4):
            await worker.do()
            await remember()
        await eventually(lambda: waits(api, run_id), "the gate is open")
        await remember()
        (gate,) = (await api.gates.ListGates(gates_pb2.ListGatesRequest(run_id=run_id))).gates
        approve = gates_pb2.GATE_DECISION_APPROVE
        await api.gates.ResolveGate(gates_pb2.ResolveGateRequest(gate_id=gate.id, decision=approve))
        await worker.fail()
        await remember()
        await worker.do()
        await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))
        await remember()
        await api.runs.ResumeRun(runs_pb2.ResumeRunRequest(run_id=run_id))
        await remember()

        assert len(moments) > 7
        for seq, (run, steps) in moments.items():
            past_run, past_steps = await then(api, run_id, seq)
            for step in steps:
                step.ClearField("superseded_epoch")  # which rows a resume replaced is not told
            assert told(past_run) == told(run), seq
            assert past_steps == steps, seq


async def test_why_a_run_was_cancelled_is_told_from_the_log(database: str) -> None:
    """Its row has the reason later than the event, and only the first one."""
    async with live_api(database) as api:
        start = runs_pb2.StartRunRequest(source="workflow w { call nobodys }")
        run_id = (await api.runs.StartRun(start)).run.id
        begun = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run.last_seq
        for reason, force in (("first", False), ("second", True)):
            asked = runs_pb2.CancelRunRequest(run_id=run_id, reason=reason, force=force)
            await api.runs.CancelRun(asked)
        ended = (await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))).run
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("UPDATE run_details SET cancel_reason = NULL")

        reasons = [(await then(api, run_id, seq))[0].cancel_reason
                   for seq in range(begun, ended.last_seq + 1)]  # fmt: skip

        assert ended.cancel_reason == "first"
        assert reasons == ["", *["first"] * (ended.last_seq - begun)]


async def waits(api: LiveApi, run_id: str) -> bool:
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run
    return run.status == types_pb2.RUN_STATUS_WAITING


async def test_a_future_and_a_past_that_is_gone_are_out_of_range(database: str) -> None:
    async with live_api(database, poll_s=0.1) as api:
        start = runs_pb2.StartRunRequest(source="workflow w { call echo }")
        run_id = (await api.runs.StartRun(start)).run.id
        await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))

        ahead = await refusal(
            api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id, at_sequence=999))
        )
        await api.runs.DeleteRun(runs_pb2.DeleteRunRequest(run_id=run_id))
        gone = await refusal(
            api.runs.ListSteps(runs_pb2.ListStepsRequest(run_id=run_id, at_sequence=1))
        )

    assert (ahead.code, ahead.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD")
    assert (gone.code, gone.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")


def step_event(number: int) -> tuple[str, dict[str, Any]]:
    """A step of its own, named by its number."""
    step_id = f"{RUN}/b.{number:04}/e1/0"
    row = {"id": step_id, "at": f"b.{number:04}", "epoch": 1, "retry_count": 0}
    return "step_completed", {"step": {**row, "step_name": str(number), "status": "completed"}}


@pytest.fixture
async def long_run(database: str) -> AsyncIterator[AsyncEngine]:
    """A run of 600 steps, one event each."""
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, RUN, last_seq=LONG)
            await add_events(conn, RUN, *map(step_event, range(1, LONG + 1)))
        yield engine


@contextlib.contextmanager
def after_each_read(engine: AsyncEngine, do: Callable[[], object]) -> Iterator[list[int]]:
    """Do something after every read of events; gives a list that grows by 1 for each of them."""
    reads: list[int] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM run_events\n" in statement:
            reads.append(1)
            do()

    event.listen(engine.sync_engine, "after_cursor_execute", note)
    yield reads
    event.remove(engine.sync_engine, "after_cursor_execute", note)


def names(steps: Iterator[types_pb2.Step]) -> list[str]:
    return [step.step_name for step in steps]


async def test_a_run_that_goes_on_and_goes_away_meanwhile_has_one_past(
    database: str, long_run: AsyncEngine
) -> None:
    """Between the reads of one answer it gets events, then it is removed; the next one fails."""
    pasts = Pasts(FakeReplica(long_run))
    with psycopg.connect(database, autocommit=True) as other:
        steps = iter(
            [
                "UPDATE workflow_runs SET last_seq = last_seq + 1, status = 'cancelling'",
                "DELETE FROM run_events",
                "DELETE FROM workflow_runs",
            ]
        )
        with after_each_read(long_run, lambda: other.execute(next(steps))) as reads:
            past, run = await pasts.read(NAMESPACE, RUN, LONG)

    assert len(reads) == 3
    assert names(past.steps()) == [str(number) for number in range(1, LONG + 1)]
    assert past.run(run).last_seq == LONG
    with pytest.raises(RunNotFoundError):
        await pasts.read(NAMESPACE, RUN, LONG)


async def test_further_pages_of_a_past_fold_nothing(long_run: AsyncEngine) -> None:
    """The log is read once for all of them, and again once it may not be the same any more."""
    replica = FakeReplica(long_run)
    pasts = Pasts(replica)
    with after_each_read(long_run, lambda: None) as reads:
        pages = [
            names((await pasts.read(NAMESPACE, RUN, 500))[0].steps(begin))[:100]
            for begin in range(0, 500, 100)
        ]
        once = len(reads)
        replica.rewrite()
        await pasts.read(NAMESPACE, RUN, 500)

    assert [name for page in pages for name in page] == [str(number) for number in range(1, 501)]
    assert (once, len(reads)) == (2, 4)


async def test_pasts_are_kept_within_their_budget(long_run: AsyncEngine) -> None:
    """The one that nobody asked for the longest goes; one that is too large is not kept at all."""
    replica = FakeReplica(long_run)
    (weight,) = {(await Pasts(replica).read(NAMESPACE, RUN, 100))[0].weight}
    pasts = Pasts(replica, kept_bytes=int(weight * 2.5))
    with after_each_read(long_run, lambda: None) as reads:
        for seq in (100, 99, 100, 98, 100):
            await pasts.read(NAMESPACE, RUN, seq)
        assert len(reads) == 3
        await pasts.read(NAMESPACE, RUN, 99)
        assert len(reads) == 4
        for _ in range(2):
            await pasts.read(NAMESPACE, RUN, 400)
        assert len(reads) == 8
