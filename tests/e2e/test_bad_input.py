"""What is wrong is refused with the status, reason and detail that the contract promises.

Each test counts all rows before and after: a refusal writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from runkon.v1 import (
    gates_pb2,
    gates_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    workers_pb2,
    workers_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)
from runkon_client import (
    Actions,
    AlreadyExistsError,
    Client,
    Code,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    ResourceExhaustedError,
    RunkonClientError,
    RunSpec,
    StartedRun,
)
from runkon_client.values import ConflictPolicy, GateState, RunStatus
from support.clusters import impatient, replicas, row_counts, rows, working
from support.postgres import cloned
from support.rows import ulid
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from runkon_client import Task

ONE_STEP = "workflow one { call echo }"
TAKES_INPUT = "workflow takes { inputs { ticket required fast boolean } call echo }"
GATED = """workflow gated {
  gate human_review { name = review options = { now = "Now" later = "Later" } }
}"""
NOWHERE = ulid(7)
NESTED = "workflow w { " + "do { " * 100_000 + "}" * 100_000 + " }"
MOVING = """
SELECT 1 FROM workflow_runs
WHERE fact_seq <> applied_fact_seq OR (ended_at IS NULL AND status <> 'waiting')"""
SQL = "'; DROP TABLE workflow_runs; --"


@dataclass(frozen=True, slots=True)
class Bench:
    """A replica of this module's own, so that nothing else writes to its database."""

    address: str
    database: str

    @contextlib.asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """What happens inside must not write anything.

        The worker of an earlier test is waited for: that it has left is written a little later.
        So are runs that were answered before they had come to their end, or to a gate.
        """
        await until(lambda: not rows(self.database, MOVING), "every run has ended or waits")
        await until(lambda: row_counts(self.database)["workers"] == 0, "every worker has left")
        await until(lambda: row_counts(self.database)["replicas"] == 1, "the replica is listed")
        before = row_counts(self.database)
        yield
        assert row_counts(self.database) == before


@pytest.fixture(scope="module")
def bench(postgres_server: str, template_database: str) -> Iterator[Bench]:
    with cloned(postgres_server, template_database) as database, replicas(database) as (one,):
        yield Bench(one.address, database)


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[Client]:
    async with impatient(bench.address, principal="ann") as made:
        yield made


async def refused(call: Awaitable[Any]) -> RunkonClientError:
    """The error that a call ends with."""
    with pytest.raises(RunkonClientError) as failed:
        await call
    assert failed.value.code not in {Code.INTERNAL, Code.UNKNOWN}
    return failed.value


async def gated_run(client: Client) -> StartedRun:
    """A run that waits at its gate."""
    run = await client.start_run(source=GATED)
    assert (await run.get()).status is RunStatus.WAITING
    return run


async def ended_run(client: Client) -> StartedRun:
    run = await client.start_run(source=ONE_STEP)
    assert (await run.wait()).status is RunStatus.COMPLETED
    return run


@pytest.mark.parametrize("name", ["nobody", "nobody@3", "w" * 128])
async def test_an_unknown_workflow_is_not_found(bench: Bench, client: Client, name: str) -> None:
    """By name and by version."""
    async with bench.unchanged():
        error = await refused(client.start_run(name))

    assert isinstance(error, NotFoundError)
    assert error.reason == "WORKFLOW_NOT_FOUND"
    assert error.metadata["name"] == name


@pytest.mark.parametrize(
    ("inputs", "fields"),
    [
        ({}, ["inputs.ticket"]),
        ({"ticket": "1", "colour": "red"}, ["inputs.colour"]),
        ({"colour": "red"}, ["inputs.colour", "inputs.ticket"]),
        ({"ticket": "1", "fast": "maybe"}, ["inputs.fast"]),
    ],
    ids=["missing", "undeclared", "both", "no boolean"],
)
async def test_wrong_inputs_are_named(
    bench: Bench, client: Client, inputs: dict[str, str], fields: list[str]
) -> None:
    """One violation for each."""
    async with bench.unchanged():
        error = await refused(client.start_run(source=TAKES_INPUT, inputs=inputs))

    assert isinstance(error, InvalidArgumentError)
    assert error.reason == "INPUTS_INVALID"
    assert sorted(violation.field for violation in error.violations) == fields


async def test_a_source_that_does_not_parse_shows_the_place(bench: Bench, client: Client) -> None:
    """Line and column from StartRun and PutWorkflow; the line with its caret from validation."""
    source = "workflow broken {\n  call plan\n  call }\n}"
    async with bench.unchanged():
        started = await refused(client.start_run(source=source))
        put = await refused(client.put_workflow(source))
        validation = await client.validate_workflow(source)

    for error in (started, put):
        assert isinstance(error, InvalidArgumentError)
        assert error.reason == "DSL_SYNTAX"
        assert error.violations[0].field == "source:3:8"
    problem = validation.diagnostics[0]
    line, caret = problem.excerpt.splitlines()[-2:]
    assert (validation.valid, problem.line, problem.column) == (False, 3, 8)
    assert line[caret.index("^")] == "}"
    assert "expected" in problem.message


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (NESTED[:250_000], "DSL_LIMIT"),
        ("workflow w { " + "call a " * 30_000 + "}", "DSL_LIMIT"),
        ("workflow w { call " + "x" * 200_000 + " }", "DSL_LIMIT"),
        ("workflow w { while a.b { max_iterations = 4294967295 call c } }", "DSL_LIMIT"),
        ("workflow w { call a { retries = 4294967296 } }", "DSL_LIMIT"),
        ('workflow w { call a { timeout = "9999999h" } }', "DSL_LIMIT"),
        ("workflow w { if nobody.ready { call a } }", "DSL_SEMANTIC"),
    ],
    ids=["depth", "steps", "name", "passes", "retries", "timeout", "unknown step"],
)
async def test_a_source_beyond_the_limits_is_refused(
    bench: Bench, client: Client, source: str, reason: str
) -> None:
    """By StartRun and PutWorkflow alike, each problem with its place."""
    async with bench.unchanged():
        errors = [
            await refused(client.start_run(source=source)),
            await refused(client.put_workflow(source)),
        ]

    for error in errors:
        assert isinstance(error, InvalidArgumentError)
        assert error.reason == reason
        assert error.violations[0].field.startswith("source:")


async def test_too_much_is_refused(bench: Bench, client: Client) -> None:
    """Inputs and sources over their limits, messages over that of the transport."""
    async with bench.unchanged():
        one_input = await refused(
            client.start_run(source=TAKES_INPUT, inputs={"ticket": "x" * 65_537})
        )
        all_inputs = await refused(
            client.start_run(source=ONE_STEP, inputs={f"i{n}": "x" * 60_000 for n in range(20)})
        )
        source = await refused(client.start_run(source="// " + "x" * 300_000 + "\n" + ONE_STEP))
        huge_source = await refused(client.put_workflow("x" * 5_000_000))
        message = await refused(
            client.start_run(source=TAKES_INPUT, inputs={"ticket": "x" * 5_000_000})
        )

    assert [violation.field for violation in one_input.violations] == ["inputs.ticket"]
    assert [violation.field for violation in all_inputs.violations] == ["inputs"]
    assert source.code is Code.INVALID_ARGUMENT
    assert huge_source.code is Code.INVALID_ARGUMENT
    assert isinstance(message, ResourceExhaustedError)


TEXTS: dict[str, Callable[[Client, str], Awaitable[Any]]] = {
    "workflow": lambda client, text: client.start_run(f"w{text}"),
    "input": lambda client, text: client.start_run(source=TAKES_INPUT, inputs={"ticket": text}),
    "input name": lambda client, text: client.start_run(source=ONE_STEP, inputs={text: "1"}),
    "source": lambda client, text: client.start_run(source=f"workflow w {{ call a{text} }}"),
    "key": lambda client, text: client.start_run(source=ONE_STEP, key=text),
    "request id": lambda client, text: client.start_run(source=ONE_STEP, request_id=text),
    "label": lambda client, text: client.start_run(source=ONE_STEP, labels={"a": text}),
    "trigger": lambda client, text: client.start_run(source=ONE_STEP, trigger=text),
    "run id": lambda client, text: client.get_run(text),
    "run key": lambda client, text: client.get_run(key=text),
    "cancel reason": lambda client, text: client.run(NOWHERE).cancel(text),
    "gate id": lambda client, text: client.gate(f"{NOWHERE}/{text}").get(),
    "gate name": lambda client, text: client.run(NOWHERE).gate(text).approve(),
    "feedback": lambda client, text: client.gate(f"{NOWHERE}/b.0000/e1/0").approve(text),
    "workflow source": lambda client, text: client.put_workflow(f"workflow w {{ call a{text} }}"),
    "workflow name": lambda client, text: client.get_workflow(f"w{text}"),
}


@pytest.mark.parametrize("where", TEXTS)
async def test_nul_is_refused_everywhere(bench: Bench, client: Client, where: str) -> None:
    """PostgreSQL cannot store it, so it never gets there."""
    async with bench.unchanged():
        error = await refused(TEXTS[where](client, "a\x00b"))

    assert error.code is Code.INVALID_ARGUMENT
    assert error.violations


async def test_what_looks_like_sql_is_stored_as_it_is(bench: Bench, client: Client) -> None:
    """In every text that may hold it."""
    run = await client.start_run(
        source=TAKES_INPUT,
        inputs={"ticket": SQL},
        key=SQL,
        labels={"a": SQL},
        trigger=SQL,
        parent_run_id=SQL,
    )
    stored = await run.wait()

    assert (stored.status, stored.inputs["ticket"]) == (RunStatus.COMPLETED, SQL)
    assert (stored.key, stored.trigger, stored.labels["a"]) == (SQL, SQL, SQL)
    assert (await client.get_run(key=SQL)).id == run.id
    assert row_counts(bench.database)["workflow_runs"] > 0


@pytest.mark.parametrize("placeholder", ["{{ ''.__class__ }}", "{{config}}", "${HOME}", "{% if %}"])
async def test_a_template_is_text(bench: Bench, client: Client, placeholder: str) -> None:
    """Nothing evaluates it: the worker is handed what was given."""
    handed: list[str] = []
    actions = Actions()

    @actions.action("look")
    async def look(task: Task) -> None:
        handed.append(task.inputs["ticket"])

    source = "workflow looks { inputs { ticket required } call look }"
    async with working(bench.address, actions):
        run = await client.start_run(source=source, inputs={"ticket": placeholder})
        await run.wait()

    assert handed == [placeholder]


async def test_a_selection_that_is_not_offered_is_refused(bench: Bench, client: Client) -> None:
    """The answer lists what is; the gate stays open, without a vote."""
    run = await gated_run(client)
    async with bench.unchanged():
        error = await refused(run.gate("review").approve(selections=["never"]))
    gate = await run.gate("review").get()

    assert isinstance(error, InvalidArgumentError)
    assert error.reason == "GATE_SELECTION_INVALID"
    assert "now, later" in error.violations[0].description
    assert (gate.state, gate.votes) == (GateState.PENDING, ())
    await run.cancel()


async def test_a_gate_has_one_winner(bench: Bench, client: Client) -> None:
    """The same answer again is the same OK; another one is told who won."""
    run = await gated_run(client)
    gate = run.gate("review")
    first = await gate.approve("go", selections=["now"])
    await run.wait()
    again = await client.gate(first.id).approve("go", selections=["now"])
    async with impatient(bench.address, principal="bob") as bob, bench.unchanged():
        other_decision = await refused(client.gate(first.id).reject())
        other_person = await refused(bob.gate(first.id).reject("no"))

    assert again == first
    for error in (other_decision, other_person):
        assert isinstance(error, PreconditionError)
        assert error.reason == "GATE_ALREADY_RESOLVED"
        assert error.metadata["resolved_by"] == "ann"
        assert error.violations[0].field == first.id


async def test_gates_that_are_not_there_are_not_found(bench: Bench, client: Client) -> None:
    """By id, by name, and in a run that is not there."""
    run = await ended_run(client)
    async with bench.unchanged():
        by_id = await refused(client.gate(f"{run.id}/b.0009/e1/0").approve())
        by_name = await refused(run.gate("review").approve())
        by_run = await refused(client.run(NOWHERE).gate("review").approve())

    assert (by_id.code, by_id.reason) == (Code.NOT_FOUND, "GATE_NOT_FOUND")
    assert (by_name.code, by_name.reason) == (Code.NOT_FOUND, "GATE_NOT_FOUND")
    assert (by_run.code, by_run.reason) == (Code.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_run_that_has_ended_is_not_cancelled(bench: Bench, client: Client) -> None:
    """The answer says what it has come to; cancelling a cancelled one is OK."""
    run = await ended_run(client)
    async with bench.unchanged():
        error = await refused(run.cancel(request_id="late"))
    other = await gated_run(client)
    await other.cancel("enough")
    ended = await other.wait()

    assert isinstance(error, PreconditionError)
    assert error.reason == "RUN_STATE"
    assert error.metadata["state"] == "completed"
    assert error.violations[0].field == run.id
    assert (ended.status, ended.cancel_reason) == (RunStatus.CANCELLED, "enough")
    assert (await other.cancel("again")).cancel_reason == "enough"


async def test_a_cursor_ahead_is_out_of_range(bench: Bench, client: Client) -> None:
    """For pages and for streams; a negative one is malformed."""
    run = await ended_run(client)
    head = (await run.get()).last_seq
    async with bench.unchanged():
        page = await refused(run.list_events(head + 1))
        stream = await refused(anext(run.events(head + 1)))
        negative = await refused(run.list_events(-1))

    for error in (page, stream):
        assert isinstance(error, OutOfRangeError)
        assert error.reason == "CURSOR_AHEAD"
        assert error.metadata["head_seq"] == str(head)
    assert [violation.field for violation in negative.violations] == ["after_seq"]


async def test_pages_ask_for_sound_sizes_and_tokens(bench: Bench, client: Client) -> None:
    """Negative sizes, garbage, and the token of another list; a huge size is cut."""
    for _ in range(2):
        await ended_run(client)
    first = runs_pb2.ListRunsRequest(page_size=1)
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(bench.address, options=options) as channel:
        runs = runs_pb2_grpc.RunServiceStub(channel)
        workflows = workflows_pb2_grpc.WorkflowServiceStub(channel)
        gates = gates_pb2_grpc.GateServiceStub(channel)
        token = (await runs.ListRuns(first)).next_page_token
        bad: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("page_size", lambda: runs.ListRuns(runs_pb2.ListRunsRequest(page_size=-1))),
            ("page_size", lambda: gates.ListGates(gates_pb2.ListGatesRequest(page_size=-1))),
            ("page_token", lambda: runs.ListRuns(runs_pb2.ListRunsRequest(page_token="garbage"))),
            ("page_token", lambda: runs.ListRuns(runs_pb2.ListRunsRequest(page_token=token + "A"))),
            (
                "page_token",
                lambda: runs.ListRuns(
                    runs_pb2.ListRunsRequest(order_by="create_time", page_token=token)
                ),
            ),
            (
                "page_token",
                lambda: workflows.ListWorkflows(
                    workflows_pb2.ListWorkflowsRequest(page_token=token)
                ),
            ),
        ]
        async with bench.unchanged():
            for field, call in bad:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await call()
                assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT, field
                assert field in str(failed.value.details())
        whole = await runs.ListRuns(runs_pb2.ListRunsRequest(page_size=2**31 - 1))

    assert token
    assert len(whole.runs) >= 2


async def test_a_report_for_a_task_that_never_was_is_not_found(bench: Bench) -> None:
    """Nor is one whose token was never given out; both are answers, not crashes."""
    report = workers_pb2.TaskReport(task_id=f"{NOWHERE}/b.0000/e1/0#0", token="t")
    report.result.SetInParent()
    options = [("grpc.enable_http_proxy", 0)]
    async with (
        grpc.aio.insecure_channel(bench.address, options=options) as channel,
        bench.unchanged(),
    ):
        stub = workers_pb2_grpc.WorkerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ReportTask(workers_pb2.ReportTaskRequest(report=report))

    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_request_id_answers_again_and_is_not_reused(bench: Bench, client: Client) -> None:
    """The same request gets the first answer; another one is refused, also a cancel."""
    inputs = {"ticket": "1"}
    first = await client.start_run(source=TAKES_INPUT, inputs=inputs, request_id="r-1")
    await first.wait()
    async with bench.unchanged():
        again = await client.start_run(source=TAKES_INPUT, inputs=inputs, request_id="r-1")
        other = await refused(
            client.start_run(source=TAKES_INPUT, inputs={"ticket": "2"}, request_id="r-1")
        )
        cancel = await refused(first.cancel(request_id="r-1"))

    assert (again.id, again.replayed, first.replayed) == (first.id, True, False)
    for error in (other, cancel):
        assert isinstance(error, AlreadyExistsError)
        assert error.reason == "REQUEST_ID_REUSED"
        assert error.metadata["request_id"] == "r-1"


async def test_a_start_that_is_sent_many_times_happens_once(bench: Bench, client: Client) -> None:
    """Twenty at the same moment with one request id: one run."""
    before = row_counts(bench.database)["workflow_runs"]
    answers = await asyncio.gather(
        *(client.start_run(source=ONE_STEP, request_id="r-many") for _ in range(20))
    )

    assert len({answer.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert row_counts(bench.database)["workflow_runs"] == before + 1


async def test_run_keys_follow_their_policy(bench: Bench, client: Client) -> None:
    """FAIL refuses, USE_EXISTING gives the live run, CANCEL_EXISTING replaces it."""
    live = await client.start_run(source=GATED, key="order-1")
    async with bench.unchanged():
        error = await refused(client.start_run(source=GATED, key="order-1"))
    existing = await client.start_run(
        source=GATED, key="order-1", conflict_policy=ConflictPolicy.USE_EXISTING
    )
    instead = await client.start_run(
        source=GATED, key="order-1", conflict_policy=ConflictPolicy.CANCEL_EXISTING
    )

    assert isinstance(error, AlreadyExistsError)
    assert error.reason == "RUN_KEY_IN_USE"
    assert error.metadata["run_id"] == live.id
    assert (existing.id, existing.started) == (live.id, False)
    assert (instead.id != live.id, instead.started) == (True, True)
    assert (await live.wait()).status is RunStatus.CANCELLED
    assert (await client.get_run(key="order-1")).id == instead.id
    await instead.cancel()
    await instead.wait()
    assert (await client.start_run(source=ONE_STEP, key="order-1")).started


async def test_a_bad_item_stops_no_other_of_its_batch(client: Client) -> None:
    """Each has its own outcome, in the order of the request."""
    good, bad, unknown = await client.start_runs(
        [RunSpec(source=ONE_STEP), RunSpec(source="workflow {"), RunSpec("nobody")]
    )

    assert isinstance(good, StartedRun)
    assert isinstance(bad, InvalidArgumentError)
    assert isinstance(unknown, NotFoundError)
    assert (bad.reason, unknown.reason) == ("DSL_SYNTAX", "WORKFLOW_NOT_FOUND")
    assert (await good.wait()).status is RunStatus.COMPLETED


@pytest.mark.parametrize("bad", ["../x", "x" * 1_000_000, "a\nb", f"{NOWHERE}\u202e", "1"])
async def test_an_id_that_is_none_is_malformed(bench: Bench, client: Client, bad: str) -> None:
    """Whatever it holds; one that could be of a run is not found."""
    async with bench.unchanged():
        error = await refused(client.run(bad).get())
        unknown = await refused(client.run(NOWHERE).get())

    assert error.code is Code.INVALID_ARGUMENT
    assert (unknown.code, unknown.reason) == (Code.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_run_of_another_namespace_looks_like_none(bench: Bench, client: Client) -> None:
    """Same code, reason and words as for an id that never was."""
    run = await gated_run(client)
    gate = await run.gate("review").get()
    async with impatient(bench.address, namespace="elsewhere") as stranger, bench.unchanged():
        errors = [
            await refused(stranger.get_run(run.id)),
            await refused(stranger.run(run.id).cancel()),
            await refused(stranger.run(run.id).list_events()),
            await refused(stranger.gate(gate.id).approve()),
        ]
        nothing = await refused(stranger.get_run(NOWHERE))

    assert [error.code for error in errors] == [Code.NOT_FOUND] * 4
    assert str(errors[0]).replace(run.id, NOWHERE) == str(nothing)
    await run.cancel()
