"""Runs and gates of the asynchronous client, to be followed, waited for and answered."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from runkon_client.calls import gates as gate_calls
from runkon_client.calls import runs as run_calls
from runkon_client.calls.gates import GateFilter, GateTarget, Vote
from runkon_client.calls.texts import require_text
from runkon_client.feeds import FeedFilter, GateFollower
from runkon_client.following import DEFAULT_HEARTBEAT, EventFollower, Following
from runkon_client.streams import AsyncStream, EventStream
from runkon_client.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import timedelta

    from runkon_client.calls.runs import EventPage, Started
    from runkon_client.transport import AsyncTransport
    from runkon_client.values import (
        EventKind,
        Explanation,
        FanOutItem,
        FanOutItemStatus,
        Gate,
        GateState,
        PullRequest,
        ReportedPullRequest,
        Run,
        RunEvent,
        Snapshot,
        Step,
    )

_T = TypeVar("_T", bound="RunEvent | Snapshot")


class RunHandle:
    """One run, to be followed, waited for, cancelled, resumed."""

    def __init__(self, transport: AsyncTransport, run_id: str) -> None:
        require_text("run_id", run_id)
        self.id = run_id
        self._transport = transport
        self._namespace = transport.endpoint.namespace

    async def get(self, *, full: bool = False) -> Run:
        """The run as it is now."""
        return await self._transport.perform(
            run_calls.get_run(self._namespace, self.id, "", full=full)
        )

    async def at(self, sequence: int) -> Run:
        """The run as it was right after this event, told from its events.

        Raises:
            OutOfRangeError: there is no such event yet, or it is kept no longer.
        """
        return await self._transport.perform(
            run_calls.get_run(self._namespace, self.id, "", full=False, at_sequence=sequence)
        )

    async def explain(self) -> Explanation:
        """Why the run is not moving, and what would move it, down through its child runs."""
        return await self._transport.perform(run_calls.explain_run(self._namespace, self.id))

    async def dismiss(self, *, undo: bool = False, request_id: str = "") -> Run:
        """Take the run off the lists of what needs attention, or put it back.

        Raises:
            PreconditionError: it has not ended.
        """
        return await self._transport.perform(
            run_calls.dismiss_run(self._namespace, self.id, undo=undo, request_id=request_id)
        )

    async def delete(self, *, request_id: str = "") -> int:
        """Remove the run with its child runs, for good; gives how many runs that were.

        Raises:
            PreconditionError: it has not ended, or it belongs to a run above it.
        """
        return await self._transport.perform(
            run_calls.delete_run(self._namespace, self.id, request_id=request_id)
        )

    async def cancel(self, reason: str = "", *, force: bool = False, request_id: str = "") -> Run:
        """Ask for the run's end; it goes on until its `always` section is over, unless `force`.

        Raises:
            PreconditionError: it has completed or failed.
        """
        return await self._transport.perform(
            run_calls.cancel_run(
                self._namespace, self.id, reason, force=force, request_id=request_id
            )
        )

    async def resume(
        self, *, from_step: str = "", restart: bool = False, request_id: str = ""
    ) -> Run:
        """Take the run up again, in a new epoch: repeat the steps whose failure failed it.

        Args:
            from_step: id of a step; it and everything after it is repeated as well.
            restart: repeat everything; the only way to take up a completed run.
            request_id: default: a new one for every resume.

        Raises:
            PreconditionError: it is live or cancelled, or nothing can be repeated in this way.
            NotFoundError: no such run, or no such step in it.
            AlreadyExistsError: another live run holds its key.
        """
        return await self._transport.perform(
            run_calls.resume_run(
                self._namespace,
                self.id,
                from_step=from_step,
                restart=restart,
                request_id=request_id,
            )
        )

    async def wait(self, timeout: timedelta | None = None) -> Run:
        """The run once it has ended; without `timeout` it waits for ever.

        Raises:
            WaitTimeoutError: it had not ended in time.
        """
        waiting = Waiting(self._namespace, self.id, timeout, now=time.monotonic())
        while True:
            call = waiting.call(now=time.monotonic())
            answer = await self._transport.perform(call, waiting.policy(now=time.monotonic()))
            if answer.done:
                return answer.run
            await asyncio.sleep(waiting.pause_s(now=time.monotonic()))

    def steps(
        self, *, include_superseded: bool = False, at_sequence: int = 0
    ) -> AsyncIterator[Step]:
        """The run's steps in program order, with their texts whole.

        Args:
            include_superseded: also rows that a resume has replaced.
            at_sequence: as they were right after this event, told from the run's events, whose
                long texts are cut; 0: as they are.
        """
        return self._transport.pages(
            lambda token: run_calls.list_steps(
                self._namespace,
                self.id,
                include_superseded=include_superseded,
                token=token,
                at_sequence=at_sequence,
            )
        )

    async def get_step(self, step_id: str) -> Step:
        """One step, with its texts whole.

        Raises:
            NotFoundError: no such step.
        """
        return await self._transport.perform(run_calls.get_step(self._namespace, step_id))

    def items(
        self, step_id: str, *, status: FanOutItemStatus | None = None
    ) -> AsyncIterator[FanOutItem]:
        """The items of a `foreach` step in the provider's order, fetched as they are taken."""
        return self._transport.pages(
            lambda token: run_calls.list_items(self._namespace, step_id, status=status, token=token)
        )

    def events(
        self,
        after_seq: int = 0,
        *,
        kinds: Sequence[EventKind] = (),
        from_now: bool = False,
        heartbeat: timedelta = DEFAULT_HEARTBEAT,
    ) -> EventStream[RunEvent]:
        """Every event above `after_seq` once, in order, until the run has ended.

        Args:
            after_seq: a stored `cursor` goes on where it left off.
            kinds: only these; none means all.
            from_now: only events that come later, instead of those above `after_seq`.
            heartbeat: 1 s to 60 s; three of them without a frame mean: open another stream.
        """
        return self._follow("now" if from_now else after_seq, kinds, heartbeat)

    def snapshot_events(
        self, *, kinds: Sequence[EventKind] = (), heartbeat: timedelta = DEFAULT_HEARTBEAT
    ) -> EventStream[RunEvent | Snapshot]:
        """First a `Snapshot` of the run and its steps, then every event that came after it."""
        return self._follow("snapshot", kinds, heartbeat)

    async def list_events(
        self, after_seq: int = 0, *, kinds: Sequence[EventKind] = (), page_size: int = 0
    ) -> EventPage:
        """One page of the events that are there now."""
        return await self._transport.perform(
            run_calls.list_run_events(
                self._namespace, self.id, after_seq=after_seq, kinds=kinds, page_size=page_size
            )
        )

    def gates(self, *, state: GateState | None = None) -> AsyncIterator[ListedGate]:
        """The run's gates, pending ones first."""
        return listed_gates(self._transport, GateFilter(run_id=self.id, state=state))

    def gate(self, name: str) -> GateHandle:
        """The gate of that name: the pending one, or else the latest."""
        return GateHandle(self._transport, GateTarget(run_id=self.id, gate_name=name))

    def _follow(
        self,
        begin: int | Literal["now", "snapshot"],
        kinds: Sequence[EventKind],
        heartbeat: timedelta,
    ) -> EventStream[_T]:
        following = Following(self._namespace, self.id, begin, tuple(kinds), heartbeat)
        # Snapshots come only from a stream that was begun with one, which is what `_T` says.
        return EventStream(self._transport, EventFollower(following), lambda item: cast("_T", item))


class StartedRun(RunHandle):
    """A run with what StartRun answered.

    `started` is false if the run was there (USE_EXISTING); `replayed` is true if this is the answer
    to an earlier request with the same request id.
    """

    def __init__(self, transport: AsyncTransport, answer: Started) -> None:
        super().__init__(transport, answer.run.id)
        self.run = answer.run
        self.started = answer.started
        self.replayed = answer.replayed


class GateHandle:
    """One gate, to be looked at and answered."""

    def __init__(self, transport: AsyncTransport, target: GateTarget) -> None:
        self._transport = transport
        self._namespace = transport.endpoint.namespace
        self._target = target

    async def get(self) -> Gate:
        """The gate as it is now, with its votes.

        Raises:
            NotFoundError: no such gate.
        """
        target = self._target
        if not target.gate_id:
            listed = listed_gates(self._transport, GateFilter(run_id=target.run_id))
            target = target.found_in([listed_gate.gate async for listed_gate in listed])
        return await self._transport.perform(gate_calls.get_gate(self._namespace, target.gate_id))

    async def approve(
        self,
        feedback: str = "",
        *,
        selections: Sequence[str] = (),
        on_behalf_of: str = "",
        request_id: str = "",
    ) -> Gate:
        """Vote for going on; the gate stays pending if it needs more approvals.

        Raises:
            PreconditionError: resolved otherwise, timed out, or its run is over.
            InvalidArgumentError: selections that are not among the options.
        """
        vote = Vote(
            approve=True,
            feedback=feedback,
            selections=selections,
            on_behalf_of=on_behalf_of,
            request_id=request_id,
        )
        return await self._transport.perform(
            gate_calls.resolve_gate(self._namespace, self._target, vote)
        )

    async def reject(
        self, feedback: str = "", *, on_behalf_of: str = "", request_id: str = ""
    ) -> Gate:
        """Vote against going on; one such vote ends the run's body.

        Raises:
            PreconditionError: resolved otherwise, timed out, or its run is over.
        """
        vote = Vote(
            approve=False, feedback=feedback, on_behalf_of=on_behalf_of, request_id=request_id
        )
        return await self._transport.perform(
            gate_calls.resolve_gate(self._namespace, self._target, vote)
        )

    async def report_pull_request(
        self, pull_request: PullRequest, *, request_id: str = ""
    ) -> ReportedPullRequest:
        """Tell a `pr_approval` or `pr_checks` gate how its pull request stands.

        Raises:
            PreconditionError: a gate of another type, rejected, timed out, or its run is over.
        """
        return await self._transport.perform(
            gate_calls.report_pull_request(self._namespace, self._target, pull_request, request_id)
        )


class ListedGate(GateHandle):
    """A gate of a list; `gate` is how it stood when it was listed."""

    def __init__(self, transport: AsyncTransport, gate: Gate) -> None:
        super().__init__(transport, GateTarget(gate_id=gate.id))
        self.gate = gate


async def listed_gates(transport: AsyncTransport, wanted: GateFilter) -> AsyncIterator[ListedGate]:
    """The gates that everything given holds for, page after page."""
    namespace = transport.endpoint.namespace
    async for gate in transport.pages(partial(gate_calls.list_gates, namespace, wanted)):
        yield ListedGate(transport, gate)


class GateStream(AsyncStream["Gate", ListedGate, str]):
    """Asynchronous iterator over gates that wait, open and change; it never ends."""


class Gates:
    """The gates of a namespace: called, it lists them; `watch` follows them."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    def __call__(
        self,
        *,
        run_id: str = "",
        gate_type: str = "",
        workflow_name: str = "",
        state: GateState | None = None,
        min_age: timedelta | None = None,
    ) -> AsyncIterator[ListedGate]:
        """Gates that everything given holds for, pending ones first, each group oldest first."""
        wanted = GateFilter(run_id, gate_type, workflow_name, state, min_age)
        return listed_gates(self._transport, wanted)

    def watch(
        self,
        cursor: str = "",
        *,
        run_id: str = "",
        gate_type: str = "",
        workflow_name: str = "",
        labels: Mapping[str, str] | None = None,
        heartbeat: timedelta = DEFAULT_HEARTBEAT,
    ) -> GateStream:
        """An inbox that stays live: the gates that wait, then each that opens or changes.

        A gate may come again without a change: how it came last is how it stands.

        Args:
            cursor: one of an earlier watch goes on with the changes since.
            run_id, gate_type, workflow_name, labels: only gates that all of these hold for.
            heartbeat: 1 s to 60 s; three of them without a frame mean: open another stream.
        """
        wanted = FeedFilter(
            namespace=self._transport.endpoint.namespace,
            cursor=cursor,
            run_id=run_id,
            gate_type=gate_type,
            workflow_name=workflow_name,
            labels=labels or {},
            heartbeat=heartbeat,
        )
        return GateStream(
            self._transport, GateFollower(wanted), lambda gate: ListedGate(self._transport, gate)
        )
