"""A caller: starts runs, follows them, answers their gates, cancels some, and writes it all down.

It plays the difficult customer on purpose: it sends requests twice, lets two people answer the same
gate, reads the same events from two places, and repeats with the same request id what got no
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runkon_client.client import Client
from runkon_client.errors import RunkonClientError
from runkon_client.retry import RetryPolicy
from runkon_client.verify.histories import kind_of
from runkon_client.verify.orders import orders
from runkon_client.verify.subscribers import Subscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runkon_client.values import RunEvent
    from runkon_client.values.gates import Gate
    from runkon_client.verify.histories import History

_T = TypeVar("_T")

ONCE: Final = RetryPolicy(window_s=0)
CALL_S: Final = 4.0
"""Longer than this nobody waits for an answer; what became of the call is then unknown."""
TAIL_CALLS: Final = 5
THINK_S: Final = 0.3
TWICE: Final = 0.15
"""Share of starts that are sent twice; others below likewise."""
OTHER_PAYLOAD: Final = 0.05
CANCELLED: Final = 0.08
SECOND_READER: Final = 0.25
SECOND_VOTE: Final = 0.5


class Caller:
    """One process's worth of callers.

    Args:
        address: where it calls.
        second: another way to the servers, for second readers.
    """

    def __init__(self, history: History, address: str, second: str, *, seed: int) -> None:
        self._history = history
        self._chance = random.Random(seed)  # noqa: S311 - decides what a test does
        self._first = self._connect(address, history.name)
        self._second = self._connect(second, f"{history.name}-b")
        self._running: set[asyncio.Task[None]] = set()
        self._is_starting = True
        self._count = 0
        self._run_ids: list[str] = []

    def _connect(self, address: str, principal: str) -> Client:
        return Client(address, principal=principal, retry=ONCE)

    async def run(self, book: dict[str, Any], *, live: int) -> None:
        """Keep `live` runs going until told `quiet`; then five last calls and the end.

        Args:
            book: `workflows` to store (`name`, `source`), in their order, and `starts` to choose
                from (`id`, `workflow`, `inputs`, `queue`).
            live: how many runs at a time.
        """
        starting = asyncio.create_task(self._start_runs(book, live))
        starting.add_done_callback(self._ended)
        async for order in orders():
            match order:
                case "quiet":
                    self._is_starting = False
                case "finish":
                    await self._say_goodbye()
                    break
                case _:
                    pass
        for task in (starting, *self._running):
            task.cancel()
        await asyncio.gather(starting, *self._running, return_exceptions=True)
        for client in (self._first, self._second):
            await client.close()

    async def _start_runs(self, book: dict[str, Any], live: int) -> None:
        for each in book["workflows"]:
            source = str(each["source"])
            await self._insist("PutWorkflow", {"name": each["name"]}, self._putting(source))
        while self._is_starting:
            if len(self._running) < live:
                self._spawn(self._live_through(self._chance.choice(book["starts"])))
            await asyncio.sleep(THINK_S * self._chance.random())

    def _putting(self, source: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def put() -> dict[str, Any]:
            stored = await self._first.put_workflow(source)
            return {"version": stored.workflow.version}

        return put

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of the caller itself must not look like a quiet customer."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._history.see("Broken", {}, {"error": repr(error)})
            os._exit(1)

    # -- one run ---------------------------------------------------------------------------------

    async def _live_through(self, start: dict[str, Any]) -> None:
        """Start a run and stay with it until it has ended."""
        self._count += 1
        name = f"{self._history.name}-{self._count}"
        begun = [self._start(name, start, start["inputs"])]
        if self._chance.random() < TWICE:
            begun.append(self._start(name, start, start["inputs"]))
        answers = await asyncio.gather(*begun)
        run_id = next((answer["run_id"] for answer in answers if answer), None)
        if run_id is None:
            return
        self._run_ids.append(run_id)
        if self._chance.random() < OTHER_PAYLOAD:
            await self._start(name, start, {**start["inputs"], "item": "another"})
        beside: list[Awaitable[Any]] = []
        if self._chance.random() < CANCELLED:
            beside.append(self._cancel(run_id, name))
        if self._chance.random() < SECOND_READER:
            beside.append(self._read_again(run_id))
        first = Subscriber(self._history, f"{name}/1")
        async with asyncio.TaskGroup() as group:
            for each in beside:
                group.create_task(_as_coroutine(each))
            await first.follow(self._first.run(run_id), self._react)
            group.create_task(self._look(run_id))

    async def _start(
        self, name: str, start: dict[str, Any], inputs: dict[str, str]
    ) -> dict[str, Any] | None:
        digest = f"{zlib.crc32(json.dumps([start['workflow'], inputs]).encode()):08x}"
        args = {"request_id": f"start-{name}", "digest": digest, "name": name}

        async def begin() -> dict[str, Any]:
            labels = {"name": name, "program": start["id"]}
            if start["queue"]:
                labels["queue"] = start["queue"]
            started = await self._first.start_run(
                start["workflow"],
                inputs=inputs,
                request_id=args["request_id"],
                labels=labels,
            )
            return {"run_id": started.id, "replayed": started.replayed}

        return await self._insist("StartRun", args, begin)

    async def _cancel(self, run_id: str, name: str) -> None:
        await asyncio.sleep(2 * self._chance.random())
        args = {"run_id": run_id, "request_id": f"cancel-{name}", "digest": "cancel"}

        async def cancel() -> dict[str, Any]:
            run = await self._first.run(run_id).cancel(
                "verify cancels it", request_id=args["request_id"]
            )
            return {"run_id": run_id, "status": run.status}

        await self._insist("CancelRun", args, cancel)

    async def _read_again(self, run_id: str) -> None:
        await asyncio.sleep(self._chance.random())
        second = Subscriber(self._history, f"{run_id}/2")
        await second.follow(self._second.run(run_id), None)

    async def _look(self, run_id: str) -> None:
        await self._insist("GetRun", {"run_id": run_id}, self._looking(run_id))

    def _looking(self, run_id: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def look() -> dict[str, Any]:
            run = await self._first.get_run(run_id)
            return {"run_id": run_id, "status": run.status}

        return look

    # -- gates -----------------------------------------------------------------------------------

    def _react(self, event: RunEvent) -> None:
        gate: Gate | None = getattr(event, "gate", None)
        if event.kind != "gate_waiting" or gate is None:
            return
        word = gate.name.partition("_")[0]
        if word in {"ok", "no", "race"}:
            self._spawn(self._answer(gate, approve=word != "no", is_race=word == "race"))

    async def _answer(self, gate: Gate, *, approve: bool, is_race: bool) -> None:
        """Answer as the gate's name says; `race` just when its time is over."""
        delay_s = 0.9 + 0.3 * self._chance.random() if is_race else THINK_S * self._chance.random()
        await asyncio.sleep(delay_s)
        votes = [self._vote(self._first, self._history.name, gate, approve=approve)]
        if self._chance.random() < SECOND_VOTE:
            rival = f"{self._history.name}-b"
            votes.append(self._vote(self._second, rival, gate, approve=approve))
        await asyncio.gather(*votes)

    async def _vote(self, client: Client, principal: str, gate: Gate, *, approve: bool) -> None:
        args = {"gate_id": gate.id, "principal": principal, "approve": approve}
        request_id = f"{gate.id}-{principal}"
        handle = client.gate(gate.id)

        async def vote() -> dict[str, Any]:
            answer = await (
                handle.approve("go on", request_id=request_id)
                if approve
                else handle.reject("no", request_id=request_id)
            )
            return {"gate_id": answer.id, "state": answer.state, "resolved_by": answer.resolved_by}

        await self._insist("ResolveGate", args, vote)

    # -- calls -----------------------------------------------------------------------------------

    async def _say_goodbye(self) -> None:
        """The last calls: with nothing broken any more, each must be answered at once."""
        for run_id in self._run_ids[-TAIL_CALLS:]:
            with contextlib.suppress(RunkonClientError, TimeoutError):
                await self._attempt("GetRun", {"run_id": run_id}, self._looking(run_id))

    async def _insist(
        self, op: str, args: dict[str, Any], call: Callable[[], Awaitable[_T]]
    ) -> _T | None:
        """Call until there is an answer; None if it was an error."""
        while True:
            try:
                return await self._attempt(op, args, call)
            except RunkonClientError as error:
                if kind_of(error) == "fail":
                    return None
            except TimeoutError:
                pass
            await asyncio.sleep(0.1 + 0.4 * self._chance.random())

    async def _attempt(
        self, op: str, args: dict[str, Any], call: Callable[[], Awaitable[_T]]
    ) -> _T:
        operation = self._history.begin(op, **args)
        try:
            async with asyncio.timeout(CALL_S):
                result = await call()
        except RunkonClientError as error:
            operation.failed(error)
            raise
        except TimeoutError:
            operation.unknown("DEADLINE_EXCEEDED")
            raise
        except asyncio.CancelledError:
            operation.unknown("CANCELLED")
            raise
        operation.ok(result)
        return result


async def _as_coroutine(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
