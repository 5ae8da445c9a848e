"""AdminService on a real database: who may, limits, replicas, retention, purges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from sqlalchemy import func, select, text

from runkon.v1 import admin_pb2, runs_pb2, workers_pb2
from runkon_server.api.identity import Caller
from runkon_server.store import purging, tables
from support.live_api import live_api, refusal, worker_stream
from support.live_work import Hand, start
from support.rows import add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from support.live_api import LiveApi

LONG_AGO = datetime.now(UTC) - timedelta(days=40)
METHODS = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name


class Strangers:
    """Everybody is from elsewhere."""

    def identify(self, _metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Caller:
        return Caller("zoe", peer)

    async def still_holds(self, _caller: Caller) -> bool:
        return True


async def test_only_administrators_are_let_in(database: str) -> None:
    """Every RPC, whatever it is asked; the other services are open to all."""
    async with live_api(database, identity=Strangers()) as api:
        for name in METHODS:
            request: Any = getattr(admin_pb2, f"{name}Request")()
            refused = await refusal(getattr(api.admin, name)(request))

            assert (refused.code, refused.reason) == (
                StatusCode.PERMISSION_DENIED,
                "ADMIN_REQUIRED",
            )
            assert refused.metadata["principal"] == "zoe"
        await api.runs.ListRuns(runs_pb2.ListRunsRequest())


async def limits_of(api: LiveApi, **fields: Any) -> list[admin_pb2.ActionLimit]:
    """Every page of the list, each of one limit."""
    found: list[admin_pb2.ActionLimit] = []
    token = ""
    while True:
        request = admin_pb2.ListActionLimitsRequest(page_size=1, page_token=token, **fields)
        page = await api.admin.ListActionLimits(request)
        found += page.limits
        token = page.next_page_token
        if not token:
            return found


def set_limit(api: LiveApi, action: str, **fields: Any) -> Any:
    return api.admin.SetActionLimit(admin_pb2.SetActionLimitRequest(action=action, **fields))


async def test_limits_are_set_listed_and_cleared(api: LiveApi) -> None:
    """A limit takes the place of another as a whole; namespaces do not see each other's."""
    both = (await set_limit(api, "mail", concurrency=2, rate_per_second=0.5)).limit
    await set_limit(api, "deploy", concurrency=0)
    await set_limit(api, "mail", namespace="shop", concurrency=1)
    only = (await set_limit(api, "mail", rate_per_second=4)).limit

    assert (both.concurrency, both.rate_per_second, both.namespace) == (2, 0.5, "default")
    assert (only.HasField("concurrency"), only.rate_per_second) == (False, 4)
    assert [(each.action, each.HasField("next_task_time")) for each in await limits_of(api)] == [
        ("deploy", False),
        ("mail", True),
    ]
    assert [each.namespace for each in await limits_of(api, namespace="shop")] == ["shop"]
    clear = admin_pb2.ClearActionLimitRequest(action="mail")
    assert (await api.admin.ClearActionLimit(clear)).cleared
    assert not (await api.admin.ClearActionLimit(clear)).cleared
    assert [each.action for each in await limits_of(api)] == ["deploy"]


async def test_a_limit_tells_what_is_in_use(api: LiveApi) -> None:
    """Two of three tasks may go at once; a rate says when the next one may."""
    await set_limit(api, "plan", concurrency=2, rate_per_second=100)
    for _ in range(3):
        await start(api, "workflow w { call plan }")
    hand = Hand(api, actions=["plan"])
    await hand.take()
    await hand.take()

    (found,) = await limits_of(api)
    assert (found.running, found.queued) == (2, 1)
    assert found.HasField("next_task_time")


async def test_a_limit_set_on_one_replica_is_kept_by_another(database: str) -> None:
    """Which comes later, so that it knows of the limit from its first task on."""
    async with live_api(database) as one:
        await set_limit(one, "plan", concurrency=0)
        await start(one, "workflow w { call plan }")
        async with live_api(database) as two:
            poll = workers_pb2.PollTasksRequest(worker_id="p", actions=["plan"])
            poll.wait.FromMilliseconds(500)
            refused = (await two.workers.PollTasks(poll)).leases
            await one.admin.ClearActionLimit(admin_pb2.ClearActionLimitRequest(action="plan"))
            lease = await Hand(two, actions=["plan"]).take()

    assert (len(refused), lease.action) == (0, "plan")


async def test_repeated_requests_get_the_first_answer(api: LiveApi) -> None:
    """Of each mutation; the same id for something else is refused."""
    first = await set_limit(api, "plan", concurrency=1, request_id="a")
    clear = admin_pb2.ClearActionLimitRequest(action="plan", request_id="b")
    gone = await api.admin.ClearActionLimit(clear)
    again = await api.admin.ClearActionLimit(clear)
    late = await set_limit(api, "plan", concurrency=1, request_id="a")
    other = await refusal(set_limit(api, "plan", concurrency=2, request_id="a"))

    assert (first.replayed, first.limit.concurrency) == (False, 1)
    assert (gone.cleared, gone.replayed, again.cleared, again.replayed) == (
        True, False, True, True,
    )  # fmt: skip
    assert late.replayed
    assert not late.HasField("limit")
    assert (other.code, other.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def replicas_of(api: LiveApi) -> list[admin_pb2.Replica]:
    found: list[admin_pb2.Replica] = []
    token = ""
    while True:
        request = admin_pb2.ListReplicasRequest(page_size=1, page_token=token)
        page = await api.admin.ListReplicas(request)
        found += page.replicas
        token = page.next_page_token
        if not token:
            return found


async def test_every_replica_lists_all_of_them_with_what_is_theirs(database: str) -> None:
    """Newest first: one with a run, one with a worker; one that stopped is gone."""
    async with live_api(database) as one:
        await start(one, "workflow w { gate human_review { name = g } }")
        async with live_api(database, linger_s=60) as two:
            hello = workers_pb2.WorkerHello(worker_id="w", actions=["a"], concurrency=1)
            async with worker_stream(two, hello):

                async def has_worker() -> bool:
                    return [each.workers for each in await replicas_of(one)] == [1, 0]

                await eventually(has_worker, "the worker of the newer one is counted")
                found = await replicas_of(one)
                await start(two, "workflow w { call plan }")

                async def has_run() -> bool:
                    return any(each.runs_owned for each in await replicas_of(one))

                await eventually(has_run, "somebody owns the run")
        (left,) = await replicas_of(one)

    assert [each.id for each in found] == [two.engine.replica_id, one.engine.replica_id]
    assert all(each.live and not each.draining and each.version for each in found)
    assert all(each.start_time.ToDatetime() <= each.last_seen_time.ToDatetime() for each in found)
    assert left.id == one.engine.replica_id


async def test_a_replica_that_died_is_listed_as_not_live_for_a_day(api: LiveApi) -> None:
    """Rows as another process left them: one of an hour ago, one of last week."""

    async def listed() -> bool:
        return len(await replicas_of(api)) >= 1

    await eventually(listed, "the replica tells of itself")
    async with api.engine.reads.connect() as conn:
        for name, hours in (("dead", 1), ("older", 200)):
            await conn.execute(
                text(
                    "INSERT INTO replicas (token, owner_token, replica, version, is_draining,"
                    " started_at, seen_at) SELECT :name, :name, :name, '0', false, now(),"
                    " clock_timestamp() - make_interval(hours => :hours)"
                ),
                {"name": name, "hours": hours},
            )
    found = {each.id: each.live for each in await replicas_of(api)}
    async with live_api(api.engine.config.dsn) as other:

        async def swept() -> bool:
            ids = {each.id for each in await replicas_of(other)}
            return "older" not in ids and other.engine.replica_id in ids

        await eventually(swept, "a start forgets who was silent for long")
        left = {each.id for each in await replicas_of(api)}

    assert (found["dead"], found[api.engine.replica_id]) == (False, True)
    assert "dead" in left


async def retention_of(api: LiveApi, **fields: Any) -> tuple[str, timedelta | None, bool]:
    answer = await api.admin.GetRetention(admin_pb2.GetRetentionRequest(**fields))
    found = answer.retention
    keep_for = found.keep_for.ToTimedelta() if found.HasField("keep_for") else None
    return found.namespace, keep_for, found.inherited


async def test_retention_of_a_namespace_comes_before_that_of_all(api: LiveApi) -> None:
    """The software's own, then the database's, then the namespace's, and back."""
    week, days = Duration(seconds=7 * 86_400), timedelta(days=1)
    assert await retention_of(api) == ("default", 30 * days, True)
    assert await retention_of(api, for_all=True) == ("", 30 * days, True)

    def put(**fields: Any) -> Any:
        return api.admin.SetRetention(admin_pb2.SetRetentionRequest(**fields))

    await put(for_all=True, keep_for=week)
    said = await put(namespace="audit", keep_forever=True)

    assert (said.retention.namespace, said.retention.inherited) == ("audit", False)
    assert await retention_of(api) == ("default", 7 * days, True)
    assert await retention_of(api, for_all=True) == ("", 7 * days, False)
    assert await retention_of(api, namespace="audit") == ("audit", None, False)
    await put(namespace="audit", inherit=True)
    assert await retention_of(api, namespace="audit") == ("audit", 7 * days, True)


async def test_purging_counts_first_then_goes_batch_by_batch(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five old runs, one of which stays for its live child, one young one; two looked at a time."""
    monkeypatch.setattr(purging, "RUNS_AT_ONCE", 2)
    async with engine_of(database) as engine, engine.connect() as conn:
        for number in range(1, 6):
            await add_run(conn, ulid(number), status="completed", ended_at=LONG_AGO)
        await add_run(conn, ulid(6), status="completed", ended_at=datetime.now(UTC))
        await add_run(conn, ulid(7), status="waiting", parent_workflow_run_id=ulid(1))
    async with live_api(database, sweep_s=3_600.0) as api:
        run = admin_pb2.PurgeRunsRequest
        counted = await api.admin.PurgeRuns(run(dry_run=True))
        removed = [(await api.admin.PurgeRuns(run(request_id=each))).removed for each in "abcdef"]
        again = await api.admin.PurgeRuns(run(request_id="a"))
        recent = await api.admin.PurgeRuns(run(older_than=Duration(seconds=0), dry_run=True))
        async with api.engine.reads.connect() as conn:
            left = (await conn.execute(select(func.count()).select_from(tables.runs))).scalar_one()

    assert (counted.due, counted.removed) == (5, 0)
    assert (sum(removed), removed[-1], left) == (4, 0, 3)
    assert (again.removed, again.replayed) == (removed[0], True)
    assert recent.due == 2
