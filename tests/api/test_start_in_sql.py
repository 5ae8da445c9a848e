"""`runkon.start_run()`: a run that begins exactly if the caller's own transaction commits."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from runkon.v1 import runs_pb2
from runkon.v1.runs_pb2 import StartRunRequest
from runkon.v1.types_pb2 import RUN_STATUS_COMPLETED, RUN_STATUS_PENDING
from runkon_server import errors
from runkon_server.api import start_inbox
from runkon_server.api.digests import sql_digest_of
from support.live_api import live_api, refusal
from support.live_work import ended, put, run_of
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.live_api import LiveApi

QUICK = "workflow quick { inputs { what required } call echo }"
HELD = "workflow held { gate human_review { name = check } }"
ASK = "SELECT runkon.start_run('quick', inputs => %s, request_id => %s)"
WHAT = '{"what": "it"}'
EVERYTHING = """
SELECT runkon.start_run('quick', inputs => %s, request_id => 'all', key => 'k', labels => %s,
    priority => 7, dry_run => true, trigger => 'order', parent_run_id => 'above',
    conflict_policy => 'USE_EXISTING', start_delay => '90 days', fail_fast => false,
    namespace => 'default')"""


class Caller:
    """A service with a transaction of its own."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._conn = conn

    async def ask(self, statement: str, *parameters: object) -> Any:
        """The first column of the first row."""
        row = await (await self._conn.execute(statement, parameters)).fetchone()
        return None if row is None else row[0]

    async def start(self, request_id: str | None = None, inputs: str = WHAT) -> str:
        return str(await self.ask(ASK, inputs, request_id))

    async def state(self, request_id: str) -> str:
        return str(await self.ask("SELECT state FROM runkon.start_outcome(%s)", request_id))

    async def nothing_left(self) -> bool:
        """Whether every request is answered."""
        await self.rollback()
        return bool(await self.ask("SELECT count(*) = 0 FROM start_requests"))

    async def commit(self) -> None:
        await self._conn.commit()

    async def rollback(self) -> None:
        await self._conn.rollback()


@asynccontextmanager
async def calling(database: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        yield Caller(conn)


@pytest_asyncio.fixture
async def caller(database: str) -> AsyncIterator[Caller]:
    async with calling(database) as one:
        yield one


async def settled(caller: Caller, request_id: str) -> str:
    """The state of a request once it is no longer pending."""

    async def is_settled() -> bool:
        await caller.rollback()
        return await caller.state(request_id) != "pending"

    await eventually(is_settled, f"{request_id} is settled")
    return await caller.state(request_id)


async def test_a_run_begins_when_its_callers_transaction_commits(
    api: LiveApi, caller: Caller
) -> None:
    await put(api, QUICK)
    run_id = await caller.start("one")
    unseen = await refusal(run_of(api, run_id))

    await caller.commit()
    state = await settled(caller, "one")
    run = await ended(api, run_id)

    assert unseen.code is StatusCode.NOT_FOUND
    assert state == "started"
    assert run.status == RUN_STATUS_COMPLETED
    assert run.inputs == {"what": "it"}
    assert run.started_by.startswith("sql:")


async def test_a_transaction_that_is_rolled_back_leaves_nothing(
    api: LiveApi, caller: Caller
) -> None:
    await put(api, QUICK)
    gone = await caller.start("one")
    await caller.rollback()

    kept = await caller.start("one", '{"what": "other"}')
    await caller.commit()
    await settled(caller, "one")
    await ended(api, kept)

    assert gone != kept
    assert (await refusal(run_of(api, gone))).code is StatusCode.NOT_FOUND


async def test_what_the_call_says_reaches_the_run(api: LiveApi, caller: Caller) -> None:
    await put(api, QUICK)

    run_id = await caller.ask(EVERYTHING, '{"what": 4711}', '{"team": "core"}')
    await caller.commit()
    await settled(caller, "all")
    run = await run_of(api, run_id)

    assert run.status == RUN_STATUS_PENDING
    assert (dict(run.inputs), dict(run.labels)) == ({"what": "4711"}, {"team": "core"})
    assert (run.key, run.priority, run.dry_run, run.trigger) == ("k", 7, True, "order")
    assert run.parent_run_id == "above"
    assert not run.config.fail_fast


async def test_one_request_id_is_one_run_whichever_way_it_comes(
    api: LiveApi, caller: Caller
) -> None:
    """First in SQL and then as a call, before anybody has created the run; and the other way."""
    await put(api, QUICK)
    request = StartRunRequest(workflow="quick", inputs={"what": "it"}, request_id="sql-first")

    in_sql = await caller.start("sql-first")
    await caller.commit()
    called = await api.runs.StartRun(request)
    request.request_id = "call-first"
    first = await api.runs.StartRun(request)
    again = await caller.start("call-first")
    await caller.commit()

    assert (called.run.id, called.replayed, called.started) == (in_sql, True, True)
    assert (again, first.replayed) == (first.run.id, False)
    assert await caller.ask("SELECT count(*) FROM workflow_runs") == 2


async def test_one_request_id_with_another_payload_is_refused_both_ways(
    api: LiveApi, caller: Caller
) -> None:
    await put(api, QUICK)
    request = StartRunRequest(workflow="quick", inputs={"what": "else"}, request_id="r")
    await caller.start("r")
    await caller.commit()

    as_a_call = await refusal(api.runs.StartRun(request))
    with pytest.raises(psycopg.errors.UniqueViolation) as in_sql:
        await caller.start("r", '{"what": "else"}')
    await caller.rollback()
    request.request_id = "s"
    await api.runs.StartRun(request)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await caller.start("s")

    assert as_a_call.reason == "REQUEST_ID_REUSED"
    assert in_sql.value.diag.message_detail == "REQUEST_ID_REUSED"


async def test_a_call_while_the_transaction_is_open_does_not_stop_the_others(
    api: LiveApi, caller: Caller
) -> None:
    """It waits for the transaction, for as long as anybody may wait for a lock, and then fails."""
    await put(api, QUICK)
    request = StartRunRequest(workflow="quick", inputs={"what": "it"}, request_id="r")
    in_sql = await caller.start("r")

    blocked = asyncio.ensure_future(api.runs.StartRun(request, timeout=60))
    other = await api.runs.StartRun(StartRunRequest(workflow="quick", inputs={"what": "it"}))
    run = await ended(api, other.run.id)
    await caller.commit()
    await asyncio.wait([blocked])
    answer = await api.runs.StartRun(request)

    assert run.status == RUN_STATUS_COMPLETED
    assert answer.run.id == in_sql
    if (error := blocked.exception()) is not None:
        assert error.code() in {StatusCode.UNAVAILABLE, StatusCode.ABORTED}  # type: ignore[attr-defined] # a gRPC error
    else:
        assert blocked.result().run.id == in_sql


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT runkon.start_run('nobody')", "WORKFLOW_NOT_FOUND"),
        ("SELECT runkon.start_run('quick@7')", "WORKFLOW_NOT_FOUND"),
        ("SELECT runkon.start_run('quick@x')", "WORKFLOW_NOT_FOUND"),
        ("SELECT runkon.start_run('quick', '[]')", "INVALID_ARGUMENT"),
        ("""SELECT runkon.start_run('quick', '{"what": null}')""", "INVALID_ARGUMENT"),
        ("SELECT runkon.start_run('quick', request_id => 'ü')", "INVALID_ARGUMENT"),
        ("SELECT runkon.start_run('quick', conflict_policy => 'x')", "INVALID_ARGUMENT"),
        ("SELECT runkon.start_run('quick', conflict_policy => NULL)", "INVALID_ARGUMENT"),
        ("SELECT runkon.start_run('quick', priority => NULL)", "INVALID_ARGUMENT"),
        ("SELECT runkon.start_run(NULL)", "WORKFLOW_NOT_FOUND"),
    ],
)
async def test_what_is_plainly_wrong_fails_in_the_callers_transaction(
    api: LiveApi, caller: Caller, statement: str, reason: str
) -> None:
    await put(api, QUICK)

    with pytest.raises(psycopg.Error) as raised:
        await caller.ask(statement)

    assert raised.value.diag.message_detail == reason


@pytest.mark.parametrize(
    "delay", ["90 days 1 second", "-1 second", "178000000 years", "-9999 years"]
)
async def test_a_delay_that_no_run_can_have_is_named(
    api: LiveApi, caller: Caller, delay: str
) -> None:
    """Whether or not its microseconds fit 64 bits, and at once."""
    await put(api, QUICK)

    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match=r"^start_delay must be "
    ) as raised:
        await caller.ask("SELECT runkon.start_run('quick', start_delay => %s::interval)", delay)

    assert raised.value.diag.message_detail == "INVALID_ARGUMENT"


async def test_a_request_that_cannot_start_says_why(api: LiveApi, caller: Caller) -> None:
    """In SQL by its request id, and to a caller who repeats it."""
    await put(api, QUICK)
    await put(api, HELD)
    await api.runs.StartRun(StartRunRequest(workflow="held", key="k"))
    await caller.start("no-inputs", "{}")
    await caller.ask("SELECT runkon.start_run('held', request_id => 'held', key => 'k')")
    await caller.ask(
        "SELECT runkon.start_run('held', request_id => 'too-high', priority => 101, key => 'l')"
    )
    await caller.commit()

    states = [await settled(caller, name) for name in ("no-inputs", "held", "too-high")]
    reasons = [
        await caller.ask("SELECT reason FROM runkon.start_outcome(%s)", name)
        for name in ("no-inputs", "held", "too-high")
    ]
    repeated = StartRunRequest(workflow="quick", request_id="no-inputs")
    again = await refusal(api.runs.StartRun(repeated))
    left = await caller.ask("SELECT count(*) FROM start_requests")

    assert states == ["refused"] * 3
    assert reasons == ["INPUTS_INVALID", "RUN_KEY_IN_USE", "INVALID_ARGUMENT"]
    assert (again.code, again.reason) == (StatusCode.FAILED_PRECONDITION, "START_REFUSED")
    assert again.metadata["refusal"] == "INPUTS_INVALID"
    assert left == 0


async def test_a_live_run_under_the_key_is_used_or_replaced(api: LiveApi, caller: Caller) -> None:
    await put(api, HELD)
    ask = "SELECT runkon.start_run('held', key => 'k', request_id => %s, conflict_policy => %s)"
    held = (await api.runs.StartRun(StartRunRequest(workflow="held", key="k"))).run.id

    await caller.ask(ask, "use", "use_existing")
    await caller.commit()
    used = await settled(caller, "use")
    run_used = await caller.ask("SELECT run_id FROM runkon.start_outcome('use')")
    replacing = await caller.ask(ask, "replace", "cancel_existing")
    await caller.commit()
    replaced = await settled(caller, "replace")
    holder = await api.runs.GetRun(runs_pb2.GetRunRequest(key="k"))

    assert (used, run_used) == ("existing", held)
    assert (replaced, holder.run.id) == ("started", replacing)


async def test_many_requests_are_taken_up_by_many_replicas_once_each(database: str) -> None:
    """Two replicas, one transaction with 300 calls and one that asks for the same again."""
    async with live_api(database) as one, live_api(database), calling(database) as caller:
        await put(one, QUICK)
        ask = "SELECT count(runkon.start_run('quick', %s, 'r' || n)) FROM generate_series(1, 300) n"
        await caller.ask(ask, WHAT)
        await caller.commit()
        await caller.ask(ask, WHAT)
        await caller.commit()

        await eventually(caller.nothing_left, "all are taken up")

        assert await caller.ask("SELECT count(*) FROM workflow_runs") == 300


async def test_a_request_outlives_the_replica_that_took_it_up(database: str) -> None:
    """The claim of one who died runs out; a run that was created is not created again."""
    async with live_api(database) as api:
        await put(api, QUICK)
    async with calling(database) as caller:
        run_id = await caller.start("r")
        await caller.ask("UPDATE start_requests SET claimed_until = now() RETURNING 1")
        await caller.commit()
        async with live_api(database) as api:
            first = await settled(caller, "r")
            await ended(api, run_id)
            await caller.ask(
                "INSERT INTO start_requests SELECT namespace, request_id, %s, digest, 1,"
                """ '{"workflow": "quick", "inputs": {"what": "it"}, "key": "", "labels": {},"""
                """ "conflict_policy": "fail", "priority": 0, "dry_run": false, "trigger": "","""
                """ "parent_run_id": "", "start_delay_us": 0, "fail_fast": true}', 'x'"""
                " FROM requests WHERE request_id = 'r' RETURNING 1",
                run_id,
            )
            await caller.commit()

            await eventually(caller.nothing_left, "the request is forgotten")

            assert first == "started"
            assert await caller.ask("SELECT count(*) FROM workflow_runs") == 1


async def test_only_who_is_allowed_may_call_it(api: LiveApi, database: str) -> None:
    """A new role may not; with the two grants of the documentation it may, and sees no table."""
    await put(api, QUICK)
    async with (
        calling(database) as caller,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as admin,
    ):
        await admin.execute(
            "DO $$ BEGIN CREATE ROLE order_service NOLOGIN;"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        await admin.execute("SET ROLE order_service")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await admin.execute("SELECT runkon.start_run('quick')")
        await admin.execute("RESET ROLE")
        await admin.execute("GRANT USAGE ON SCHEMA runkon TO order_service")
        await admin.execute("GRANT EXECUTE ON FUNCTION runkon.start_run TO order_service")
        await admin.execute("SET ROLE order_service")
        started = await (await admin.execute(ASK, (WHAT, "mine"))).fetchone()
        for refused in (
            "SELECT * FROM requests",
            "SELECT runkon.new_ulid()",
            "SELECT * FROM runkon.start_outcome('mine')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await admin.execute(refused)
        await admin.execute("RESET ROLE")
        assert started is not None
        await settled(caller, "mine")
        assert (await ended(api, started[0])).status == RUN_STATUS_COMPLETED


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
REQUESTS = st.builds(
    StartRunRequest,
    workflow=TEXTS,
    inputs=st.dictionaries(TEXTS, TEXTS, max_size=4),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
    key=TEXTS,
    priority=st.integers(-100, 100),
    dry_run=st.booleans(),
    start_delay=st.one_of(st.none(), st.builds(Duration, seconds=st.integers(0, 9999))),
    conflict_policy=st.integers(0, 3),
)
JSONB_HASH = """
SELECT 'sql:' || encode(sha256(convert_to(jsonb_build_object('workflow', %s::text,
    'inputs', %s::jsonb, 'key', %s::text, 'conflict_policy', %s::text, 'labels', %s::jsonb,
    'priority', %s::int, 'dry_run', %s::bool, 'trigger', '', 'parent_run_id', '',
    'start_delay_us', %s::bigint, 'fail_fast', true)::text, 'UTF8')), 'hex')"""


@settings(max_examples=60, deadline=None)
@given(request=REQUESTS)
def test_the_digest_of_a_call_is_the_one_that_sql_makes(
    postgres_server: str, request: StartRunRequest
) -> None:
    """Whatever the texts: PostgreSQL writes the object, and the two hashes are compared."""
    names = ("fail", "fail", "use_existing", "cancel_existing")
    with psycopg.connect(postgres_server) as conn:
        row = conn.execute(
            JSONB_HASH,
            (
                request.workflow,
                json.dumps(dict(request.inputs)),
                request.key,
                names[request.conflict_policy],
                json.dumps(dict(request.labels)),
                request.priority,
                request.dry_run,
                request.start_delay.seconds * 1_000_000,
            ),
        ).fetchone()

    assert row is not None
    assert row[0] == sql_digest_of(request)


async def test_a_request_waits_for_a_database_that_takes_no_runs(
    api: LiveApi, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committer has not seen yet that it is back, when a connection for reads already works."""
    monkeypatch.setattr(start_inbox, "CLAIM_S", 0.2)
    await put(api, QUICK)
    api.engine._committer.trouble = errors.DatabaseUnavailableError()
    await caller.start("held")
    await caller.commit()

    async def is_claimed() -> bool:
        await caller.rollback()
        return bool(await caller.ask("SELECT claimed_until IS NOT NULL FROM start_requests"))

    await eventually(is_claimed, "it is taken up")
    api.engine._committer.trouble = None

    assert await settled(caller, "held") == "started"
