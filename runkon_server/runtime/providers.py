"""Item providers inside the server: `list` and `workflow_runs`, in every namespace.

They take tasks by the rules that hold for workers: a replica that dies in between leaves a lease
that runs out, and another one looks again.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from runkon_server.core.decision import ItemsWork
from runkon_server.core.facts import Dependency, Item, ItemsCollected, Outcome, Reported
from runkon_server.core.variables import is_storable
from runkon_server.dsl.durations import parse_duration
from runkon_server.failpoints import failpoint_async
from runkon_server.runtime.commands import TaskReport, WorkerHello
from runkon_server.runtime.sessions import EVERYWHERE
from runkon_server.store.database import is_passing
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.reads.providing import RunFilter, find_runs
from runkon_server.store.sessions import worker_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.commands import TaskLease
    from runkon_server.runtime.dispatcher import Dispatcher
    from runkon_server.store.reads.providing import FoundRun

log = structlog.get_logger(__name__)

LIST: Final = "list"
WORKFLOW_RUNS: Final = "workflow_runs"
PROVIDED: Final = frozenset({LIST, WORKFLOW_RUNS})
CREDIT: Final = 16
"""Lists that are made at the same time."""
_STATUSES: Final = frozenset(
    {"pending", "running", "waiting", "cancelling", "completed", "failed", "cancelled"}
)
_AGE_S_MAX: Final = 100 * 365 * 86_400
_ID_BYTES: Final = 256
_CONTEXT_BYTES: Final = 64 * 1024


class ProviderError(ValueError):
    """The definition asks for something that a provider does not know."""


class ItemProviders:
    """The server's own item providers, as a worker that is no stream."""

    def __init__(self, dispatcher: Dispatcher, token: str, reads: AsyncEngine) -> None:
        self._dispatcher = dispatcher
        self._reads = reads
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()
        hello = WorkerHello(
            namespace=EVERYWHERE,
            worker_id=worker_of(token),
            actions=frozenset(),
            queues=frozenset({EVERY_QUEUE}),
            item_providers=PROVIDED,
        )
        self._session = dispatcher.open(hello, self._notified)

    def start(self) -> None:
        """Begin to take tasks."""
        self._session.add_credit(CREDIT)

    def rename(self, token: str) -> None:
        """The replica goes on under another token."""
        self._session.worker_id = worker_of(token)

    def stop(self) -> None:
        """Stop; tasks under way are handed out again when their lease runs out."""
        self._session.close()
        for task in self._running:
            task.cancel()

    def _notified(self) -> None:
        self._loop.call_soon(self._work)

    def _work(self) -> None:
        leases, _, _ = self._session.take()
        for lease in leases:
            task = self._loop.create_task(self._serve(lease))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _serve(self, lease: TaskLease) -> None:
        fact: ItemsCollected | Reported
        try:
            fact = await self._find(lease)
        except ProviderError as error:
            fact = _failure(lease, str(error), retryable=False)
        except Exception as error:
            if not is_passing(error):
                log.exception("provider.failed", provider=lease.action, run_id=lease.run_id)
            fact = _failure(lease, "the items could not be read", retryable=is_passing(error))
        await failpoint_async("items.found")
        if self._session.is_open:
            self._session.add_credit(1)
        self._session.settle(lease.task_id, lease.token)
        report = TaskReport(token=lease.token, fact=fact, digest="found by the server")
        self._dispatcher.report(lease.namespace, report, None)

    async def _find(self, lease: TaskLease) -> ItemsCollected:
        work = lease.work
        assert isinstance(work, ItemsWork)
        if work.provider == LIST:
            return listed(lease.task_id, work)
        if work.ordered:
            raise ProviderError(f"`{WORKFLOW_RUNS}` knows no order: leave `ordered` out")
        wanted = run_filter(lease.namespace, work)
        async with self._reads.connect() as conn:
            found = await find_runs(
                conn, wanted, except_root=lease.run_id, limit=work.items_max + 1
            )
        return ItemsCollected(task_id=lease.task_id, items=tuple(map(_run_item, found)))


def _failure(lease: TaskLease, error: str, *, retryable: bool) -> Reported:
    return Reported(task_id=lease.task_id, outcome=Outcome.FAILED, error=error, retryable=retryable)


def listed(task_id: str, work: ItemsWork) -> ItemsCollected:
    """The items of a JSON array in `scope.items`.

    An element is a text, which is its own id, or an object: `id` is required, `type`, `ref` and
    `depends_on` (a list of ids) are optional, and every other key with a plain value becomes part
    of the item's context.

    Raises:
        ProviderError: it is no such array.
    """
    scope = dict(work.scope or {})
    text = scope.pop("items", None)
    if text is None or scope or work.filter:
        raise ProviderError(f'`{LIST}` wants `scope = {{ items = "…" }}` and nothing beside')
    try:
        elements = json.loads(text)
    except (ValueError, RecursionError):
        raise ProviderError("`items` is no JSON") from None
    if not isinstance(elements, list):
        raise ProviderError("`items` is no JSON array")
    items: list[Item] = []
    dependencies: list[Dependency] = []
    for number, element in enumerate(elements):
        try:
            item, blockers = _element(number, element)
        except RecursionError:  # read on the last of the stack, and one level more to write
            raise ProviderError(f"item {number} is nested too deeply") from None
        items.append(item)
        dependencies += [Dependency(blocker, item.item_id) for blocker in blockers]
    return ItemsCollected(task_id=task_id, items=tuple(items), dependencies=tuple(dependencies))


def _element(number: int, element: object) -> tuple[Item, list[str]]:
    if isinstance(element, str | int) and not isinstance(element, bool):
        element = {"id": str(element)}
    if not isinstance(element, dict):
        raise ProviderError(f"item {number} is neither a text nor an object")
    fields: dict[str, Any] = dict(element)
    item_id = str(fields.pop("id", ""))
    if not item_id or len(item_id.encode(errors="replace")) > _ID_BYTES:
        raise ProviderError(f"item {number} has no `id` of 1 to {_ID_BYTES} bytes")
    blockers = fields.pop("depends_on", [])
    if not isinstance(blockers, list):
        raise ProviderError(f"item {number}: `depends_on` is no list of ids")
    item_type, item_ref = str(fields.pop("type", "")), str(fields.pop("ref", ""))
    context = {name: _plain(value) for name, value in fields.items()}
    if sum(len(n.encode(errors="replace")) + len(v) for n, v in context.items()) > _CONTEXT_BYTES:
        raise ProviderError(f"item {number} is larger than {_CONTEXT_BYTES} bytes")
    item = Item(item_type, item_id, item_ref, context)
    names = [str(each) for each in blockers]
    if not (_is_storable(item) and all(map(is_storable, names))):
        raise ProviderError(f"item {number} holds a character that cannot be stored")
    return item, names


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_storable(item: Item) -> bool:
    return all(
        is_storable(text)
        for text in (item.item_type, item.item_id, item.item_ref, *item.context.keys(),
                     *item.context.values())
    )  # fmt: skip


def run_filter(namespace: str, work: ItemsWork) -> RunFilter:
    """Which runs `workflow_runs` is asked for.

    `filter` may have `status` (words with commas between them), `workflow`, `labels` (pairs such as
    `team=core` with commas between them), `older_than` and `newer_than` (durations such as `24h`).

    Raises:
        ProviderError: it has anything else, or there is a scope.
    """
    if work.scope is not None:
        raise ProviderError(f"`{WORKFLOW_RUNS}` takes no scope: use `filter`")
    given = dict(work.filter)
    statuses = _words(given.pop("status", ""))
    unknown = sorted(set(statuses) - _STATUSES)
    if unknown:
        raise ProviderError(f"`{unknown[0]}` is no status of a run")
    workflow_name = given.pop("workflow", None)
    older_than, newer_than = _age(given, "older_than"), _age(given, "newer_than")
    labels = _labels(given.pop("labels", ""))
    if given:
        raise ProviderError(f"`{WORKFLOW_RUNS}` knows no filter `{min(given)}`")
    return RunFilter(
        namespace=namespace,
        statuses=statuses,
        workflow_name=workflow_name,
        labels=labels,
        older_than=older_than,
        newer_than=newer_than,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in _words(text):
        name, separator, value = pair.partition("=")
        if not separator:
            raise ProviderError(f"`labels` has {pair!r}, which is no pair such as `team=core`")
        labels[name.strip()] = value.strip()
    return labels


def _age(given: dict[str, str], name: str) -> timedelta | None:
    text = given.pop(name, None)
    if text is None:
        return None
    duration = parse_duration(text)
    if duration is None:
        raise ProviderError(f"`{name}` is {text!r}, which is no duration such as `24h`")
    return timedelta(seconds=min(duration.seconds, _AGE_S_MAX))


def _run_item(run: FoundRun) -> Item:
    context = {
        "workflow_name": run.workflow_name,
        "status": run.status,
        "created_at": run.created_at.isoformat(),
    }
    return Item("workflow_run", run.id, run.title or run.workflow_name, context)
