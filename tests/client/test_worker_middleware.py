"""Middleware: what goes around the functions of a worker."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from client.workers import lease_of, reported

from runkon.v1 import workers_pb2
from runkon_client import Actions, FinalError, Task
from runkon_client.worker import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client.worker import ItemsTask, Proceed

LEASE = lease_of(workers_pb2.TASK_KIND_ACTION, "act")


async def test_the_first_is_outermost_and_sees_what_was_returned() -> None:
    actions, seen = Actions(), []

    @actions.middleware
    async def outer(task: Task, proceed: Proceed) -> object:
        seen.append(f"outer {task.action}")
        returned = await proceed()
        seen.append(f"outer got {returned}")
        return f"<{returned}>"

    @actions.middleware
    async def inner(_: Task, proceed: Proceed) -> object:
        seen.append("inner")
        return await proceed()

    @actions.action("act")
    async def act(_: Task) -> str:
        seen.append("act")
        return "done"

    report = await reported(actions, LEASE)

    assert report.result.result_text == "<done>"
    assert seen == ["outer act", "inner", "act", "outer got done"]


async def test_plain_functions_run_in_a_thread_below_it() -> None:
    actions, threads = Actions(), []

    @actions.middleware
    async def around(_: Task, proceed: Proceed) -> object:
        threads.append(threading.current_thread())
        return await proceed()

    @actions.action("act")
    def act(_: Task) -> None:
        threads.append(threading.current_thread())

    await reported(actions, LEASE)

    assert threads[0] is threading.main_thread()
    assert threads[1] is not threads[0]


async def test_it_may_answer_itself_or_raise() -> None:
    """The function is not reached then."""
    actions = Actions()

    @actions.middleware
    async def guard(task: Task, proceed: Proceed) -> object:
        if task.dry_run:
            return "only said"
        if not task.identity:
            raise FinalError("nobody to act as", code="NO_IDENTITY")
        return await proceed()

    @actions.action("act")
    def act(_: Task) -> None:
        raise AssertionError

    said = await reported(actions, lease_of(workers_pb2.TASK_KIND_ACTION, "act", dry_run=True))
    failed = await reported(actions, LEASE)

    assert said.result.result_text == "only said"
    assert (failed.failure.code, failed.failure.retryable) == ("NO_IDENTITY", False)


async def test_tasks_of_other_kinds_pass_through_it_too() -> None:
    """A generator has given all of its items by then."""
    others, seen = Actions(), []

    @others.middleware
    async def around(_: Task, proceed: Proceed) -> object:
        returned = await proceed()
        seen.append(returned)
        return returned

    actions = Actions()

    @actions.items("tickets")
    def tickets(_: ItemsTask) -> Iterator[Item]:
        yield Item(id="a")

    actions.include(others)
    work = workers_pb2.ItemsWork(provider="tickets", items_max=10)
    report = await reported(actions, lease_of(workers_pb2.TASK_KIND_ITEMS, "tickets", items=work))

    assert [each.item_id for each in report.items.items] == ["a"]
    assert seen == [[Item(id="a")]]
