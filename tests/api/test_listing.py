"""Lists and counts of runs by filters, over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from runkon.v1 import runs_pb2
from runkon.v1.runs_pb2 import CountRunsRequest, ListRunsRequest
from support.live_api import refusal
from support.rows import add_run, ulid

if TYPE_CHECKING:
    from support.live_api import LiveApi

GATED = "workflow gated { gate human_review { } }"
RUNS = 9


async def fill(api: LiveApi) -> None:
    """Nine runs: every third one waits, every second one is of team core."""
    async with api.engine.reads.connect() as conn:
        for number in range(RUNS):
            await add_run(
                conn,
                ulid(number),
                status="waiting" if number % 3 == 0 else "completed",
                details={"labels": {"team": "core"} if number % 2 == 0 else {}},
            )


async def found(api: LiveApi, filter_text: str, page_size: int = 0) -> list[str]:
    """Ids of all pages."""
    request = ListRunsRequest(filter=filter_text, page_size=page_size)
    ids: list[str] = []
    while True:
        page = await api.runs.ListRuns(request)
        ids += [run.id for run in page.runs]
        if not page.next_page_token:
            return ids
        request.page_token = page.next_page_token


async def test_a_list_has_the_runs_that_meet_the_filter(api: LiveApi) -> None:
    """Page by page, newest first, counted alike."""
    await fill(api)
    wanted = "status = waiting AND labels.team = core"

    counted = await api.runs.CountRuns(CountRunsRequest(filter=wanted))

    assert await found(api, wanted) == await found(api, wanted, 1) == [ulid(6), ulid(0)]
    assert (counted.count, counted.exact) == (2, True)
    assert (await api.runs.CountRuns(CountRunsRequest())).count == RUNS
    assert await found(api, "status = failed") == []


async def test_a_token_belongs_to_its_filter(api: LiveApi) -> None:
    """Lessons 33: going on in another list gives nonsense, so it is refused."""
    await fill(api)
    page = await api.runs.ListRuns(ListRunsRequest(filter="status = waiting", page_size=1))

    other = await refusal(
        api.runs.ListRuns(
            ListRunsRequest(filter="status = completed", page_token=page.next_page_token)
        )
    )

    assert (other.code, other.reason) == (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_a_filter_that_cannot_be_read_is_refused_with_the_place(api: LiveApi) -> None:
    for call in (
        api.runs.ListRuns(ListRunsRequest(filter="status = waiting AND colour = red")),
        api.runs.CountRuns(CountRunsRequest(filter="status = waiting AND colour = red")),
    ):
        refused = await refusal(call)

        assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "FILTER_INVALID")
        assert refused.metadata == {"column": "22", "name": "colour"}
        assert refused.fields == ["filter:22"]


async def test_a_list_shows_what_was_written_before_the_call(api: LiveApi) -> None:
    """Lessons 33: no index that lags behind: started, cancelled, and at once in other lists."""
    answer = await api.runs.StartRun(
        runs_pb2.StartRunRequest(source=GATED, labels={"team": "core"})
    )
    run_id = answer.run.id
    assert await found(api, "labels.team = core") == [run_id]

    await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run_id, force=True))
    await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))

    assert await found(api, "labels.team = core AND status = cancelled") == [run_id]
    assert await found(api, "labels.team = core AND status = waiting") == []


async def test_runs_of_another_namespace_meet_no_filter(api: LiveApi) -> None:
    """S23: by none of the ways that a list may go."""
    async with api.engine.reads.connect() as conn:
        await add_run(
            conn,
            ulid(1),
            namespace="other",
            parent_workflow_run_id=ulid(0),
            details={"labels": {"team": "core"}, "key": "k"},
        )

    for text in (
        "status = running",
        "workflow = w",
        "labels.team = core",
        f"parent_workflow_run_id = {ulid(0)}",
        "key = k",
        "labels:team",
    ):
        assert await found(api, text) == []
        assert (await api.runs.CountRuns(CountRunsRequest(filter=text))).count == 0


async def test_a_number_may_be_of_more_bits_than_the_column(api: LiveApi) -> None:
    """It is compared like any other: every run's epoch is below, and none has that priority."""
    await fill(api)
    largest = 2**63 - 1

    for field in ("priority", "epoch", "depth"):
        assert len(await found(api, f"{field} < {largest}")) == RUNS
        assert await found(api, f"{field} = {-largest}") == []
    counted = await api.runs.CountRuns(CountRunsRequest(filter=f"epoch != {2**31}"))
    assert counted.count == RUNS
