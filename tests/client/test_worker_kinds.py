"""Item providers, gate resolvers and scripts: what is offered, what they get, what is reported."""

from __future__ import annotations

import logging
import os
import re
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from client.workers import cancel, is_true, lease_of, one_action, reported, working

from runkon.v1 import gates_pb2, types_pb2, workers_pb2
from runkon_client import ActionOutput, Actions, FinalError, RetryableError
from runkon_client.values import ApprovalMode, GateOption
from runkon_client.worker import Approved, GateTask, Item, ItemsTask, Pending, Rejected, ScriptTask
from runkon_client.worker.script_tasks import serve_scripts
from runkon_client.worker.scripts import ScriptRunner, View
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client.peers import WorkStream


def items_lease(**fields: Any) -> workers_pb2.TaskLease:
    work = workers_pb2.ItemsWork(**{"provider": "tickets", "items_max": 10_000, **fields})
    return lease_of(workers_pb2.TASK_KIND_ITEMS, "tickets", items=work)


def gate_lease(**fields: Any) -> workers_pb2.TaskLease:
    poll = workers_pb2.GatePoll(**{"gate_type": "window", **fields})
    return lease_of(workers_pb2.TASK_KIND_GATE, "window", gate_poll=poll)


def script_lease(text: str, **fields: Any) -> workers_pb2.TaskLease:
    work = workers_pb2.ScriptWork(text=text, **fields)
    return lease_of(workers_pb2.TASK_KIND_SCRIPT, "build", script=work)


def provider(function: Callable[[ItemsTask], Any]) -> Actions:
    actions = Actions()
    actions.items("tickets")(function)
    return actions


def resolver(function: Callable[[GateTask], Any]) -> Actions:
    actions = Actions()
    actions.gate("window")(function)
    return actions


def scripts_in(folder: Path) -> Actions:
    actions = Actions()
    actions.scripts(serve_scripts(ScriptRunner(View(folder=folder.resolve()))))
    return actions


async def test_a_worker_offers_what_it_has(tmp_path: Path) -> None:
    """Hello names item providers, gate types and scripts; there need be no action."""
    actions = scripts_in(tmp_path)
    actions.items("tickets")(lambda _: ())
    actions.gate("window")(lambda _: Pending())

    async with working(actions) as (_, work, _running):
        stream = await work.next_stream()

    assert [*stream.hello.actions] == []
    assert [*stream.hello.item_providers] == ["tickets"]
    assert [*stream.hello.gate_types] == ["window"]
    assert stream.hello.scripts is True


async def test_a_worker_offers_no_more_than_it_has() -> None:
    """Without a runner no scripts."""
    async with working(one_action(lambda _: None)) as (_, work, _running):
        stream = await work.next_stream()

    assert stream.hello.scripts is False
    assert not stream.hello.item_providers
    assert not stream.hello.gate_types


def test_names_are_taken_once_per_kind() -> None:
    """An action, a provider and a gate type may share a name; two of a kind may not."""
    actions = Actions()
    actions.action("x")(lambda _: None)
    actions.items("x")(lambda _: ())
    actions.gate("x")(lambda _: Pending())
    others = Actions()
    others.include(actions)

    assert (others.names, others.item_providers, others.gate_types) == (("x",), ("x",), ("x",))
    decorators: tuple[Any, ...] = (actions.action, actions.items, actions.gate)
    for decorate in decorators:
        with pytest.raises(ValueError, match=r"there is .* 'x' already"):
            decorate("x")(lambda _: None)
        with pytest.raises(ValueError, match="is no name for"):
            decorate("*")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_a_provider_is_told_what_is_asked_and_its_items_are_reported(
    *, is_async: bool
) -> None:
    """Scope, filter and order arrive; items go back in their order, with everything they have."""
    asked: list[Any] = []

    def find(task: ItemsTask) -> list[Item]:
        asked.append((task.provider, task.scope, task.filter, task.ordered, task.items_max))
        return [
            Item(id="2", type="ticket", ref="T-2", context={"title": "two"}, depends_on=("1",)),
            Item(id="1"),
        ]

    async def find_async(task: ItemsTask) -> list[Item]:
        return find(task)

    lease = items_lease(
        has_scope=True, scope={"team": "core"}, filter={"open": "yes"}, ordered=True
    )
    report = await reported(provider(find_async if is_async else find), lease)

    assert asked == [("tickets", {"team": "core"}, {"open": "yes"}, True, 10_000)]
    assert [*report.items.items] == [
        workers_pb2.Item(
            item_id="2",
            item_type="ticket",
            item_ref="T-2",
            context={"title": "two"},
            depends_on=["1"],
        ),
        workers_pb2.Item(item_id="1"),
    ]


async def test_no_scope_and_an_empty_one_differ() -> None:
    """None and an empty mapping; no items are an answer too, whatever yields them."""
    scopes: list[object] = []

    def find(task: ItemsTask) -> Any:
        scopes.append(task.scope)
        yield from ()

    without = await reported(provider(find), items_lease())
    empty = await reported(provider(find), items_lease(has_scope=True))

    assert scopes == [None, {}]
    assert without.WhichOneof("outcome") == empty.WhichOneof("outcome") == "items"


@pytest.mark.parametrize("returned", [None, ["x"], [Item(id="a", context={"n": 1})]])  # type: ignore[dict-item]  # the mistake
async def test_what_is_no_list_of_items_fails_for_good(returned: Any) -> None:
    """The mistake is the provider's, so no other attempt is made."""
    report = await reported(provider(lambda _: returned), items_lease())

    assert report.failure.code == "OUTPUT_INVALID"
    assert report.failure.retryable is False


async def test_a_provider_that_gives_items_one_by_one_may_fail_and_block() -> None:
    """A generator's work is its function's: done in its thread, and its errors are reported."""
    threads = []

    def tickets(_task: ItemsTask) -> Iterator[Item]:
        threads.append(threading.current_thread())
        yield Item(id="1")
        raise RetryableError("the tracker is away", code="AWAY")

    failure = (await reported(provider(tickets), items_lease())).failure

    assert (failure.message, failure.code, failure.retryable) == (
        "the tracker is away",
        "AWAY",
        True,
    )
    assert threads != [threading.main_thread()]


async def test_what_cannot_even_be_shown_is_a_failure_too() -> None:
    """A task that nobody reports would stay in hand for ever, kept by its heartbeats."""

    class Shy:
        def __repr__(self) -> str:
            raise LookupError("do not look at me")

    failure = (await reported(provider(lambda _: [Shy()]), items_lease())).failure
    assert failure.message
    failure = (await reported(resolver(lambda _: Shy()), gate_lease())).failure
    assert failure.message == "LookupError: do not look at me"


async def test_items_over_a_message_fail_for_good() -> None:
    """They are measured before they are sent."""
    many = [Item(id=f"{n}", context={"text": "x" * 60_000}) for n in range(70)]
    report = await reported(provider(lambda _: many), items_lease())

    assert (report.failure.code, report.failure.retryable) == ("OUTPUT_LIMIT", False)


ANSWERS: dict[str, tuple[Any, workers_pb2.GateAnswer]] = {
    "approved": (
        Approved(feedback="fine", selections=("a",)),
        workers_pb2.GateAnswer(
            approved=workers_pb2.GateApproved(feedback="fine", selections=["a"])
        ),
    ),
    "rejected": (
        Rejected(reason="closed"),
        workers_pb2.GateAnswer(rejected=workers_pb2.GateRejected(reason="closed")),
    ),
    "rejected without a word": (
        Rejected(reason=""),
        workers_pb2.GateAnswer(
            rejected=workers_pb2.GateRejected(reason="rejected without a reason")
        ),
    ),
    "pending": (Pending(), workers_pb2.GateAnswer(pending=workers_pb2.GatePending())),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_each_answer_of_a_resolver_is_reported(
    answer: Any, expected: workers_pb2.GateAnswer
) -> None:
    """As the contract has it."""
    report = await reported(resolver(lambda _: answer), gate_lease())

    assert report == workers_pb2.TaskReport(task_id="t", token="t/0", gate_answer=expected)


async def test_a_pending_answer_says_when_to_look_again() -> None:
    """The delay is a duration, the note is cut to what the contract takes."""
    pending = Pending(note="x" * 5000, delay=timedelta(minutes=2))
    report = await reported(resolver(lambda _: pending), gate_lease())

    assert report.gate_answer.pending.delay.ToSeconds() == 120
    assert len(report.gate_answer.pending.note) == 4096


async def test_what_is_no_answer_fails_for_good() -> None:
    """`return True` is a slip that would otherwise approve nothing for ever."""
    report = await reported(resolver(lambda _: True), gate_lease())

    assert (report.failure.code, report.failure.retryable) == ("OUTPUT_INVALID", False)


async def test_a_resolver_is_told_about_its_gate() -> None:
    """Every field of the poll, in the types of the language, and the run's variables."""
    seen: list[Any] = []

    async def look(task: GateTask) -> Pending:
        seen.append((task.gate_id, task.gate_name, task.gate_type, task.prompt, task.options))
        seen.append((task.min_approvals, task.approval_mode, dict(task.inputs)))
        return Pending()

    lease = gate_lease(
        gate_id="g",
        gate_name="window-2",
        prompt="now?",
        options=[types_pb2.GateOption(key="a", label="A")],
        min_approvals=2,
        approval_mode=gates_pb2.APPROVAL_MODE_REVIEW_DECISION,
    )
    lease.inputs["pr"] = "7"
    await reported(resolver(look), lease)

    options = (GateOption(key="a", label="A"),)
    assert seen == [
        ("g", "window-2", "window", "now?", options),
        (2, ApprovalMode.REVIEW_DECISION, {"pr": "7"}),
    ]


@pytest.mark.parametrize(
    ("lease", "words"),
    [
        (items_lease(provider="repos"), "no item provider"),
        (gate_lease(gate_type="moon"), "no gate type"),
        (script_lease("true"), "no script"),
        (lease_of(workers_pb2.TASK_KIND_UNSPECIFIED, "new"), "of an unknown kind"),
    ],
)
async def test_what_was_not_offered_is_left_to_others(
    lease: workers_pb2.TaskLease, words: str
) -> None:
    """Also when there is a fallback: that is for actions alone."""
    actions = Actions()
    actions.fallback(lambda _: None)
    report = await reported(actions, lease)

    assert words in report.failure.message
    assert report.failure.retryable is True


async def test_a_scripts_output_is_reported_raw(tmp_path: Path) -> None:
    """What it means is the server's to say; its wall time is a metric."""
    lease = script_lease('echo "<$RUNKON_NAME>"', environment={"RUNKON_NAME": "a'b"})
    report = await reported(scripts_in(tmp_path), lease)

    assert report.result.raw_output == "<a'b>\n"
    assert report.result.context == ""
    assert re.fullmatch(r"\d+", report.result.metadata["duration_ms"])


@pytest.mark.parametrize(
    ("text", "timeout_s", "failure", "words"),
    [
        ("echo bad >&2; exit 3", None, ("SCRIPT_FAILED", True), "exit code 3: bad"),
        ("sleep 60", 1, ("SCRIPT_TIMEOUT", True), "after 1 s"),
        ("../x", None, ("SCRIPT_REFUSED", False), "not allowed"),
    ],
)
async def test_a_script_that_fails_says_how(
    tmp_path: Path, text: str, timeout_s: int | None, failure: tuple[str, bool], words: str
) -> None:
    """Each failure with its code, and whether another attempt makes sense."""
    lease = script_lease(text)
    if timeout_s is not None:
        lease.script.timeout.FromSeconds(timeout_s)
    report = await reported(scripts_in(tmp_path), lease)

    assert (report.failure.code, report.failure.retryable) == failure
    assert words in report.failure.message
    assert report.failure.message.startswith("script build ")


async def test_a_cancelled_script_is_reported_when_it_is_gone(tmp_path: Path) -> None:
    """The server's word ends the process, and the report says that it was cancelled."""
    began = tmp_path / "began"

    async def lease_and_cancel(stream: WorkStream) -> workers_pb2.TaskReport:
        stream.send(
            leases=[script_lease(f"echo $$ > {began}.new && mv {began}.new {began}; sleep 600")]
        )
        await eventually(lambda: is_true(began.exists), "the script runs")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_RUN_CANCELLED)
        return await stream.next_report()

    async with working(scripts_in(tmp_path)) as (_, work, _running):
        report = await lease_and_cancel(await work.next_stream())

    assert report.WhichOneof("outcome") == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text(encoding="utf-8")), 0)


@pytest.mark.parametrize("error", [RetryableError, FinalError])
async def test_a_failure_that_was_chosen_is_one_line_of_the_log(
    error: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback, and only the first line of what it says; a bug keeps its traceback."""

    def fail(_: object) -> None:
        raise error("no room\nat all")

    def break_down(_: object) -> None:
        raise ValueError("oops")

    with caplog.at_level(logging.WARNING, "runkon_client.worker"):
        await reported(one_action(fail), lease_of(workers_pb2.TASK_KIND_ACTION, "act"))
        await reported(one_action(break_down), lease_of(workers_pb2.TASK_KIND_ACTION, "act"))

    chosen, broken = caplog.records
    assert chosen.getMessage() == "action act failed, task t: no room"
    assert chosen.exc_info is None
    assert broken.exc_info


async def test_an_output_that_cannot_be_sent_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who writes the action looks there first; nothing was raised that could show itself."""
    with caplog.at_level(logging.WARNING, "runkon_client.worker"):
        await reported(one_action(lambda _: {1, 2}), lease_of(workers_pb2.TASK_KIND_ACTION, "act"))

    (line,) = caplog.records
    assert line.getMessage().startswith("action act failed, task t: the action's output cannot be")


def test_a_script_task_reads_its_lease(tmp_path: Path) -> None:
    """Name, text, variables and time of the script; no time is none."""
    lease = script_lease("make", environment={"A": "b"})
    lease.script.timeout.FromMilliseconds(1500)
    script = ScriptTask(lease, None).script  # type: ignore[arg-type]  # nothing is asked of a host

    assert (script.name, script.text, script.environment) == ("build", "make", {"A": "b"})
    assert script.timeout_s == 1.5
    assert ScriptTask(script_lease("make"), None).script.timeout_s is None  # type: ignore[arg-type]


async def test_what_only_the_server_can_read_is_reported_as_it_is() -> None:
    """`raw_output`, and nothing beside it."""
    said = "Done.\n<<<FLOW_OUTPUT>>>\n{}\n<<<END_FLOW_OUTPUT>>>"
    lease = lease_of(workers_pb2.TASK_KIND_ACTION, "act")
    report = await reported(one_action(lambda _: ActionOutput(raw_output=said)), lease)

    assert report.result == types_pb2.StepResult(raw_output=said)


async def test_what_the_functions_share_is_closed_at_the_end() -> None:
    """Once the worker has drained, on its loop, the last one first; also of an included part.

    What one raises is raised after all of them.
    """
    closed: list[str] = []

    def closing(name: str) -> Callable[[], Any]:
        async def close() -> None:
            closed.append(name)
            if name == "of the part":
                raise OSError(name)

        return close

    part = Actions()
    part.at_end(closing("of the part"))
    actions = one_action(lambda _: None)
    actions.at_end(closing("its own"))
    actions.include(part)
    async with working(actions) as (worker, work, running):
        stream = await work.next_stream()
        worker.stop()
        assert await stream.is_closed_by_worker()
        stream.outgoing.put_nowait(None)
        with pytest.raises(OSError, match="of the part"):
            await running

    assert closed == ["of the part", "its own"]
