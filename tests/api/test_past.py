"""GetRun and ListSteps at a sequence: the past told from the log is what the rows then said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from runkon.v1 import gates_pb2, runs_pb2, types_pb2
from support.live_api import live_api, refusal
from support.live_work import Hand
from support.waiting import eventually

if TYPE_CHECKING:
    from support.live_api import LiveApi

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
    async with live_api(database, poll_s=0.1) as api:
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
