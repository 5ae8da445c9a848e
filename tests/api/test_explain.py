"""ExplainRun: every way a run can stand still, made to happen and asked about."""

from __future__ import annotations

import shlex
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from sqlalchemy import delete, text

from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2
from runkon.v1.explanations_pb2 import BlockerKind
from runkon.v1.gates_pb2 import GATE_DECISION_APPROVE
from runkon_client.cli import main
from runkon_server.store import tables
from support.live_api import live_api, refusal, worker_stream
from support.live_work import Hand, put
from support.rows import NOON, add_gate, add_run, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon.v1 import explanations_pb2
    from support.live_api import LiveApi

QUICK: dict[str, Any] = {"poll_s": 0.1, "linger_s": 0.2}


def parsed(remedy: str) -> dict[str, str]:
    """The arguments of the command line that a remedy ends with, as `runkon` itself reads it.

    Fails if there is no such command, or it does not take these words.
    """
    words = shlex.split(remedy[remedy.index("runkon ") :])[1:]
    command: click.Command | None = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    assert command is not None
    given = command.make_context("runkon", words).params
    arguments = [str(each.name) for each in command.params if isinstance(each, click.Argument)]
    return {name: given[name] for name in arguments}


@asynccontextmanager
async def served(database: str) -> AsyncIterator[LiveApi]:
    async with live_api(database, **QUICK) as api:
        yield api


async def start(api: LiveApi, source: str, **fields: Any) -> str:
    answer = await api.runs.StartRun(runs_pb2.StartRunRequest(source=source, **fields))
    return answer.run.id


async def explained(api: LiveApi, run_id: str) -> explanations_pb2.Explanation:
    answer = await api.runs.ExplainRun(runs_pb2.ExplainRunRequest(run_id=run_id))
    return answer.explanation


async def blocked(api: LiveApi, run_id: str, kind: str, says: str = "") -> explanations_pb2.Blocker:
    """The run's first blocker, once it is of this kind and says so."""
    seen: list[explanations_pb2.Blocker] = []

    async def is_so() -> bool:
        seen[:] = (await explained(api, run_id)).blockers[:1]
        return bool(seen) and BlockerKind.Name(seen[0].kind) == kind and says in seen[0].text

    await eventually(is_so, f"{kind} {says}")
    return seen[0]


async def test_a_gate_says_who_may_decide_until_when_and_who_has(database: str) -> None:
    async with served(database) as api:
        run_id = await start(
            api,
            'workflow w { gate human_review { name = check approvers = 3 timeout = "1h"'
            " exclude_starter = true } }",
        )
        await blocked(api, run_id, "BLOCKER_KIND_GATE")
        gates = await api.gates.ListGates(gates_pb2.ListGatesRequest(run_id=run_id))
        await api.gates.ResolveGate(
            gates_pb2.ResolveGateRequest(gate_id=gates.gates[0].id, decision=GATE_DECISION_APPROVE),
            metadata=(("runkon-principal", "zoe"),),
        )

        blocker = await blocked(api, run_id, "BLOCKER_KIND_GATE", "2 more approvals (1 of 3")
        explanation = await explained(api, run_id)

    assert blocker.needs_action
    assert blocker.remedy.startswith("anybody but whoever started the run may decide")
    assert parsed(blocker.remedy) == {"gate": run_id, "name": "check"}
    assert blocker.gate.votes[0].principal == "zoe"
    assert blocker.until_time.ToDatetime() > blocker.since_time.ToDatetime()
    assert explanation.headline == blocker.text
    assert explanation.current_step.step_name == "check"


async def test_a_task_says_who_could_do_it_and_where_it_queues(database: str) -> None:
    """Nobody yet; somebody who is busy; somebody who went; somebody who has it."""
    async with served(database) as api:
        first = await start(api, "workflow w { call plan }")
        second = await start(api, "workflow w { call plan }")
        nobody = await blocked(api, second, "BLOCKER_KIND_QUEUED_TASK", "no worker for `plan` has")
        hello = workers_pb2.WorkerHello(worker_id="w1", actions=["plan"], concurrency=1)
        async with worker_stream(api, hello):
            busy = await blocked(api, second, "BLOCKER_KIND_QUEUED_TASK", "one worker serves it")
        gone = await blocked(api, second, "BLOCKER_KIND_QUEUED_TASK", "connected since")
        lease = await Hand(api, actions=["plan"]).take()
        taken = await blocked(api, first, "BLOCKER_KIND_LEASED_TASK", "worker hand has `plan`")

    assert nobody.needs_action
    assert nobody.remedy == "start a worker that serves `plan`"
    assert (nobody.task.queue_position, nobody.task.workers) == (2, 0)
    assert not nobody.task.HasField("last_worker_time")
    assert (busy.needs_action, busy.task.workers) == (False, 1)
    assert gone.task.HasField("last_worker_time")
    assert (taken.task.task_id, taken.task.worker_id) == (lease.task_id, "hand")
    assert taken.until_time.ToDatetime() > taken.since_time.ToDatetime()


async def test_a_task_names_the_queue_that_nobody_serves(database: str) -> None:
    """A worker of the default queue does not count, nor does the task that waits there."""
    async with served(database) as api:
        await start(api, "workflow w { call plan }")
        run_id = await start(api, "workflow w { call plan }", labels={"queue": "big gpu"})
        hello = workers_pb2.WorkerHello(worker_id="w1", actions=["plan"], concurrency=1)
        async with worker_stream(api, hello):
            nobody = await blocked(api, run_id, "BLOCKER_KIND_QUEUED_TASK", "in queue `big gpu`, ")
        hello.queues.append("big gpu")
        async with worker_stream(api, hello):
            busy = await blocked(api, run_id, "BLOCKER_KIND_QUEUED_TASK", "one worker serves it")
        gone = await blocked(api, run_id, "BLOCKER_KIND_QUEUED_TASK", "connected since")
        lease = await Hand(api, actions=["plan"], queues=["big gpu"]).take()

    assert nobody.text == "in queue `big gpu`, no worker for `plan` has been connected"
    assert nobody.remedy == "start a worker that serves `plan`, with --queue 'big gpu'"
    assert nobody.needs_action
    assert not nobody.task.HasField("last_worker_time")
    assert (nobody.task.queue, nobody.task.queue_position, nobody.task.workers) == ("big gpu", 1, 0)
    assert (busy.needs_action, busy.task.workers) == (False, 1)
    assert gone.task.HasField("last_worker_time")
    assert (lease.run_id, lease.attempt, lease.delivery) == (run_id, 0, 0)


async def test_a_task_beyond_a_limit_names_it_and_what_would_move_it(database: str) -> None:
    """At most one at once; none at all; one in an hour. Without a worker, that comes first."""
    async with served(database) as api:
        hello = workers_pb2.WorkerHello(worker_id="w1", actions=["plan"], concurrency=9)
        limit = admin_pb2.SetActionLimitRequest(action="plan", concurrency=1)
        await api.admin.SetActionLimit(limit)
        first = await start(api, "workflow w { call plan }")
        second = await start(api, "workflow w { call plan }")
        await blocked(api, second, "BLOCKER_KIND_QUEUED_TASK", "no worker for `plan` has")
        await Hand(api, actions=["plan"]).take()
        await blocked(api, first, "BLOCKER_KIND_LEASED_TASK")
        async with worker_stream(api, hello):
            full = await blocked(api, second, "BLOCKER_KIND_LIMITED", "1 are running of 1 at once")
            limit.concurrency = 0
            await api.admin.SetActionLimit(limit)
            stopped = await blocked(api, second, "BLOCKER_KIND_LIMITED", "a limit of 0")
            async with api.engine.reads.connect() as conn:
                await conn.execute(
                    text("UPDATE action_limits SET concurrency = NULL, per_s = 1.0/3600, tokens=0")
                )
            slow = await blocked(api, second, "BLOCKER_KIND_LIMITED", "the next goes at")
            third = await start(api, "workflow w { call plan }")
            behind = await blocked(api, third, "BLOCKER_KIND_LIMITED", "at the earliest")
            async with api.engine.reads.connect() as conn:
                await conn.execute(text("UPDATE action_limits SET per_s = 5e-324"))
            never = await blocked(api, third, "BLOCKER_KIND_LIMITED", "the next goes at")

    assert (full.needs_action, stopped.needs_action, slow.needs_action) == (False, True, False)
    assert parsed(full.remedy) == parsed(stopped.remedy) == {"action": "plan"}
    assert "--concurrency 1" in full.remedy
    assert (full.task.limit.action, full.task.limit.running, full.task.limit.queued) == (
        "plan", 1, 1,
    )  # fmt: skip
    assert slow.task.limit.next_task_time.ToDatetime() > slow.since_time.ToDatetime()
    assert slow.task.earliest_time == slow.task.limit.next_task_time
    earliest, an_hour = behind.task.earliest_time.ToDatetime(), timedelta(hours=1)
    assert earliest - slow.task.earliest_time.ToDatetime() == an_hour
    assert f"at place 2 and goes at {earliest:%F %T} UTC at the earliest" in behind.text
    assert not full.task.HasField("earliest_time")
    assert not never.task.HasField("earliest_time")
    assert full.step_name == "plan"


async def test_scripts_and_items_name_the_workers_that_they_need(database: str) -> None:
    async with served(database) as api:
        await put(api, "workflow c { call echo }")
        script = await start(api, 'workflow w { script s { run = "true" } }')
        items = await start(
            api, "workflow w { foreach f { over = tickets max_parallel = 1 workflow = c } }"
        )
        blocker = await blocked(api, script, "BLOCKER_KIND_QUEUED_TASK", "no worker for script")
        lookup = await blocked(api, items, "BLOCKER_KIND_QUEUED_TASK", "no worker for provider")

    assert lookup.remedy == "start a worker that finds items of `tickets`"
    assert blocker.remedy == "start a worker with --allow-scripts"


async def test_a_pause_before_a_retry_ends_by_itself(database: str) -> None:
    async with served(database) as api:
        run_id = await start(api, 'workflow w { call plan { retries = 2 retry_delay = "5m" } }')
        await Hand(api).do(failure={"message": "no", "retryable": True})

        blocker = await blocked(api, run_id, "BLOCKER_KIND_RETRY_DELAY")

    assert not blocker.needs_action
    assert blocker.remedy == ""
    assert blocker.HasField("until_time")
    assert blocker.step_name == "plan"


async def test_a_delayed_start_says_when(database: str) -> None:
    async with served(database) as api:
        run_id = await start(api, "workflow w { call echo }", start_delay=Duration(seconds=3600))

        blocker = await blocked(api, run_id, "BLOCKER_KIND_START_DELAY")

    assert blocker.HasField("until_time")


async def test_a_child_is_explained_in_turn_down_to_the_last(database: str) -> None:
    """A grandchild's gate is what moves all three."""
    async with served(database) as api:
        await put(api, "workflow low { gate human_review { name = deep } }")
        await put(api, "workflow mid { call workflow low }")
        run_id = await start(api, "workflow top { call workflow mid }")

        async def is_told() -> bool:
            found = await explained(api, run_id)
            for _ in range(2):
                if not found.blockers or not found.blockers[0].HasField("child"):
                    return False
                found = found.blockers[0].child
            return bool(found.blockers) and found.blockers[0].gate.name == "deep"

        await eventually(is_told, "the gate of the grandchild is told")
        explanation = await explained(api, run_id)

    assert explanation.workflow_name == "top"
    assert list(explanation.current_step.workflow_chain) == ["top", "mid", "low"]
    assert explanation.blockers[0].child.blockers[0].child.workflow_name == "low"


async def test_a_cancel_waits_for_work_until_the_grace_is_over(database: str) -> None:
    async with served(database) as api:
        run_id = await start(api, "workflow w { call plan }")
        await Hand(api).take()
        await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=run_id))

        blocker = await blocked(api, run_id, "BLOCKER_KIND_LEASED_TASK", "told to stop")
        explanation = await explained(api, run_id)

    assert blocker.HasField("until_time")
    kinds = [BlockerKind.Name(each.kind) for each in explanation.blockers]
    assert kinds == ["BLOCKER_KIND_LEASED_TASK", "BLOCKER_KIND_GRACE"]
    assert explanation.blockers[1].HasField("until_time")


async def test_a_run_whose_replica_is_gone_says_so(database: str) -> None:
    """Its lease has not run out, but nobody holds the lock of that replica."""
    async with served(database) as api:
        async with api.engine.reads.connect() as conn:
            await add_run(
                conn, ulid(1), owner_token="01GONE", lease_until=text("clock_timestamp() + '1 h'")
            )

        explanation = await explained(api, ulid(1))

    blocker = next(each for each in explanation.blockers if each.HasField("owner"))
    assert BlockerKind.Name(blocker.kind) == "BLOCKER_KIND_LOST_OWNER"
    assert (blocker.owner.replica, blocker.owner.alive) == ("01gone", False)
    assert "is gone; its lease has not run out yet" in blocker.text


async def test_a_definition_that_is_gone_needs_somebody(database: str) -> None:
    async with served(database) as api:
        run_id = await start(api, "workflow w { gate human_review { name = g } }")
        await blocked(api, run_id, "BLOCKER_KIND_GATE")
    async with served(database) as other:
        async with other.engine.reads.connect() as conn:
            await conn.execute(delete(tables.definitions))

        blocker = await blocked(other, run_id, "BLOCKER_KIND_DEFINITION")

    assert blocker.needs_action
    assert "gone from the database" in blocker.text


async def test_a_run_that_needs_a_resume_says_how(database: str) -> None:
    async with served(database) as api:
        async with api.engine.reads.connect() as conn:
            await add_run(conn, ulid(1), status="needs_resume")

        explanation = await explained(api, ulid(1))

    remedies = [each.remedy for each in explanation.blockers if each.needs_action]
    assert f"runkon runs resume {ulid(1)}" in remedies
    assert parsed(f"runkon runs resume {ulid(1)}") == {"run": ulid(1)}


async def test_a_run_that_has_ended_waits_for_nothing(database: str) -> None:
    async with served(database) as api:
        run_id = await start(api, "workflow w { call plan }")
        await Hand(api).fail()
        await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))

        explanation = await explained(api, run_id)

    assert not explanation.blockers
    assert explanation.headline.startswith("the run has ended, failed; `runkon runs resume`")


async def test_runs_of_other_namespaces_are_not_explained(database: str) -> None:
    """S23."""
    async with served(database) as api:
        async with api.engine.reads.connect() as conn:
            await add_run(conn, ulid(1), namespace="other")
            await add_gate(conn, ulid(1), "b.0000", namespace="other", opened_at=NOON)

        refused = await refusal(api.runs.ExplainRun(runs_pb2.ExplainRunRequest(run_id=ulid(1))))

    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
