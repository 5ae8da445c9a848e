"""ResumeRun on a real engine: what is repeated, what stays, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from runkon.v1 import events_pb2, runs_pb2, types_pb2
from support.live_api import refusal
from support.live_work import ZOE, Hand, ended, events_of, run_of, start, steps_of
from support.rows import ulid

if TYPE_CHECKING:
    from support.live_api import LiveApi

TWO = "workflow two { call plan call build }"
COMPLETED, FAILED = types_pb2.RUN_STATUS_COMPLETED, types_pb2.RUN_STATUS_FAILED
FROM_STEP, RESTART = events_pb2.RESUME_MODE_FROM_STEP, events_pb2.RESUME_MODE_RESTART


async def resume(api: LiveApi, run_id: str, **fields: Any) -> runs_pb2.ResumeRunResponse:
    return await api.runs.ResumeRun(
        runs_pb2.ResumeRunRequest(run_id=run_id, **fields), metadata=ZOE
    )


async def failed_run(api: LiveApi, hand: Hand, **fields: Any) -> str:
    """A run whose first step is done and whose second has failed."""
    run_id = await start(api, TWO, **fields)
    await hand.do(result={"result_text": "planned"})
    await hand.fail()
    assert (await ended(api, run_id)).status == FAILED
    return run_id


async def test_a_resume_repeats_the_step_that_failed_the_run(api: LiveApi) -> None:
    """A new epoch, with key, labels, dry run and the finished step as they were."""
    hand = Hand(api)
    run_id = await failed_run(api, hand, key="order-1", labels={"a": "b"}, dry_run=True)
    seq = (await run_of(api, run_id)).last_seq
    answer = await resume(api, run_id)
    lease = await hand.do()
    run = await ended(api, run_id)

    assert (answer.run.epoch, answer.replayed, answer.run.error) == (2, False, "")
    assert (lease.step_name, lease.dry_run) == ("build", True)
    assert (run.status, run.epoch, run.error) == (COMPLETED, 2, "")
    assert (run.key, dict(run.labels), run.dry_run) == ("order-1", {"a": "b"}, True)
    resumed, *_, finished = await events_of(api, run_id, seq)
    assert (resumed.mode, resumed.resumed_by) == (events_pb2.RESUME_MODE_NORMAL, "zoe")
    assert finished.status == COMPLETED
    assert [step.step_name for step in await steps_of(api, run_id)] == ["plan", "build"]
    every = await steps_of(api, run_id, include_superseded=True)
    assert [(step.step_name, step.epoch, step.superseded_epoch) for step in every] == [
        ("plan", 1, 0),
        ("build", 1, 2),
        ("build", 2, 0),
    ]


async def test_a_stream_goes_on_from_its_cursor_after_a_resume(api: LiveApi) -> None:
    """It had ended with the first epoch; now it ends with the second."""
    hand = Hand(api)
    run_id = await failed_run(api, hand)
    seq = (await run_of(api, run_id)).last_seq
    await resume(api, run_id)
    await hand.do()
    request = runs_pb2.StreamRunEventsRequest(run_id=run_id, after_seq=seq)

    frames = [frame async for frame in api.runs.StreamRunEvents(request)]

    assert frames[-1].end.epoch == 2
    assert frames[-1].end.status == COMPLETED
    seqs = [event.seq for frame in frames for event in frame.events.events]
    assert seqs == list(range(seq + 1, seqs[-1] + 1))


async def test_a_resume_from_a_step_repeats_what_comes_after_it(api: LiveApi) -> None:
    hand = Hand(api)
    run_id = await failed_run(api, hand)
    plan, _ = await steps_of(api, run_id)
    await resume(api, run_id, mode=FROM_STEP, from_step_id=plan.id)

    assert [(await hand.do()).step_name for _ in range(2)] == ["plan", "build"]
    assert (await ended(api, run_id)).status == COMPLETED


async def test_a_completed_run_may_be_restarted(api: LiveApi) -> None:
    hand = Hand(api)
    run_id = await start(api, TWO)
    await hand.do()
    await hand.do()
    await ended(api, run_id)
    refused = await refusal(resume(api, run_id))
    await resume(api, run_id, mode=RESTART)

    assert [(await hand.do()).step_name for _ in range(2)] == ["plan", "build"]
    assert ((await ended(api, run_id)).status, refused.reason) == (COMPLETED, "RUN_STATE")
    assert refused.message == (
        f"run {run_id} is completed; it cannot be resumed: only mode RESTART repeats it"
    )


async def test_the_same_resume_again_is_one_resume(api: LiveApi) -> None:
    """Under its request id; with another wish under that id it is refused."""
    hand = Hand(api)
    run_id = await failed_run(api, hand)
    first = await resume(api, run_id, request_id="again")
    again = await resume(api, run_id, request_id="again")
    other = await refusal(resume(api, run_id, request_id="again", mode=RESTART))

    assert (first.replayed, again.replayed) == (False, True)
    assert again.run.epoch == 2
    assert (other.code, other.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_live_run_is_not_resumed(api: LiveApi) -> None:
    run_id = await start(api, TWO)
    refused = await refusal(resume(api, run_id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RUN_STATE")
    assert refused.metadata["state"] == "running"
    assert "PreconditionFailure" in refused.kinds
    assert refused.message == (
        f"run {run_id} is running; it cannot be resumed: only a run that has ended is resumed"
    )


async def test_a_cancelled_run_is_over_for_good(api: LiveApi) -> None:
    """Whatever the mode."""
    run_id = await start(api, TWO)
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run_id, force=True))
    await ended(api, run_id)

    for fields in ({}, {"mode": RESTART}):
        refused = await refusal(resume(api, run_id, **fields))
        assert (refused.reason, refused.metadata["state"]) == ("RUN_STATE", "cancelled")
        assert refused.message.count("cancelled") == 1


async def test_a_run_that_is_not_there_is_not_resumed(api: LiveApi) -> None:
    nowhere = await refusal(resume(api, ulid(7)))
    run_id = await failed_run(api, Hand(api))
    elsewhere = await refusal(resume(api, run_id, namespace="other"))

    for refused in (nowhere, elsewhere):
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_step_to_repeat_from_has_to_be_the_runs_own(api: LiveApi) -> None:
    """One that never was, and one of another run."""
    hand = Hand(api)
    run_id, other = await failed_run(api, hand), await failed_run(api, hand)
    foreign, _ = await steps_of(api, other)

    for step_id in (f"{run_id}/b.0042/e1/0", foreign.id):
        refused = await refusal(resume(api, run_id, mode=FROM_STEP, from_step_id=step_id))
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "STEP_NOT_FOUND")


async def test_a_step_that_was_replaced_is_no_place_to_begin(api: LiveApi) -> None:
    hand = Hand(api)
    run_id = await failed_run(api, hand)
    _, replaced = await steps_of(api, run_id)
    await resume(api, run_id)
    await hand.fail()
    await ended(api, run_id)

    refused = await refusal(resume(api, run_id, mode=FROM_STEP, from_step_id=replaced.id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RESUME_REFUSED")
    assert refused.metadata["mode"] == "from_step"


async def test_a_run_that_a_loop_limit_failed_has_nothing_to_repeat(api: LiveApi) -> None:
    """The refusal says what would do."""
    hand = Hand(api)
    run_id = await start(api, "workflow w { call a while a.more { max_iterations = 1 call a } }")
    for _ in range(2):
        await hand.do(result={"markers": ["more"]})
    assert (await ended(api, run_id)).status == FAILED

    refused = await refusal(resume(api, run_id))

    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RESUME_REFUSED")
    assert "from" in refused.message.lower()


async def test_a_key_that_another_run_holds_is_not_taken_back(api: LiveApi) -> None:
    hand = Hand(api)
    run_id = await failed_run(api, hand, key="order-1")
    other = await start(api, TWO, key="order-1")

    refused = await refusal(resume(api, run_id))

    assert (refused.code, refused.reason) == (StatusCode.ALREADY_EXISTS, "RUN_KEY_IN_USE")
    assert refused.metadata["run_id"] == other


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"run_id": "x"}, "run_id"),
        ({"mode": FROM_STEP}, "from_step_id"),
        ({"from_step_id": f"{ulid(1)}/b.0001/e1/0"}, "from_step_id"),
        ({"mode": 9}, "mode"),
    ],
)
async def test_what_is_no_request_is_refused(
    api: LiveApi, fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(
        api.runs.ResumeRun(runs_pb2.ResumeRunRequest(**({"run_id": ulid(1)} | fields)))
    )

    assert (refused.code, refused.fields) == (StatusCode.INVALID_ARGUMENT, [field])
