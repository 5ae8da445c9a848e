"""RunService: parse, ask the engine or the store, render. What is raised, the guard answers."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc

from runkon.v1 import runs_pb2, runs_pb2_grpc, types_pb2
from runkon_server import errors
from runkon_server.api.digests import digest_of
from runkon_server.api.events import render_event
from runkon_server.api.explaining import Explainer
from runkon_server.api.identity import current_principal
from runkon_server.api.listing import RunLists
from runkon_server.api.parsing.checks import LONG_POLL_MAX, namespace_of, page_rows, span_of
from runkon_server.api.parsing.runs import kinds_of, resume_mode
from runkon_server.api.past import Pasts, PastSource
from runkon_server.api.render import render_item, render_run, render_step
from runkon_server.api.render.items import STATUS_NAMES
from runkon_server.api.starting import RunStarter, StartEngine
from runkon_server.api.waiting import EndOfRuns, EventTeller
from runkon_server.runtime.commands import CancelRun, ResumeRun, RunCancelled, RunResumed
from runkon_server.runtime.removing import DeleteRun, DismissRun, delete_run, dismiss_run
from runkon_server.store.reads import runs, steps
from runkon_server.store.reads.events import list_events
from runkon_server.store.reads.items import list_items
from runkon_server.store.reads.steps import StepCursor

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.definitions import Definitions
    from runkon_server.api.lookups import Lookups
    from runkon_server.api.page_tokens import PageTokens
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.store.rows import RunRow

__all__ = ["AllStreams", "NamespaceStreams", "RunEngine", "RunService", "RunStreams"]

_PAST_BYTES: Final = 1024 * 1024
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class RunEngine(StartEngine, EventTeller, PastSource, Protocol):
    """The part of the engine that RunService needs."""

    @property
    def ambient(self) -> Ambient:
        """Its clock."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""

    async def cancel_run(self, command: CancelRun) -> RunCancelled:
        """Ask a run to stop."""

    async def resume_run(self, command: ResumeRun) -> RunResumed:
        """Take a finished run up again."""

    def does_itself(self, namespace: str, kind: str, action: str) -> bool:
        """Whether the replica does such tasks without a worker."""


class RunStreams(Protocol):
    """Who serves StreamRunEvents."""

    def serve(
        self, request: runs_pb2.StreamRunEventsRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """Write the frames of one stream; return after its `end`."""


class NamespaceStreams(Protocol):
    """Who serves StreamNamespaceEvents."""

    def serve(
        self, request: runs_pb2.StreamNamespaceEventsRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """Write the frames of one stream; never return."""


class AllStreams(Protocol):
    """Who serves the streams of runs."""

    @property
    def runs(self) -> RunStreams:
        """Of one run each."""

    @property
    def namespaces(self) -> NamespaceStreams:
        """Of all runs of a namespace."""


class RunService(runs_pb2_grpc.RunServiceServicer):
    """Starts runs and tells what becomes of them.

    Args:
        engine: starts, cancels and resumes runs, tells of events.
        lookups: finds what is there.
        definitions: reads and checks inline sources.
        tokens: makes and reads page tokens.
        streams: serves event streams.
    """

    def __init__(
        self,
        engine: RunEngine,
        lookups: Lookups,
        definitions: Definitions,
        tokens: PageTokens,
        streams: AllStreams,
    ) -> None:
        self._engine = engine
        self._lookups = lookups
        self._tokens = tokens
        self._streams = streams
        self._lists = RunLists(engine, tokens)
        self._explainer = Explainer(engine, definitions)
        self._starter = RunStarter(engine, lookups, definitions)
        self._pasts = Pasts(engine)
        self._ends = EndOfRuns(engine, lookups, engine.ambient)

    async def StartRun(
        self, request: runs_pb2.StartRunRequest, context: Context
    ) -> runs_pb2.StartRunResponse:
        """Start one run."""
        return await self._starter.start(request)

    async def BatchStartRuns(
        self, request: runs_pb2.BatchStartRunsRequest, context: Context
    ) -> runs_pb2.BatchStartRunsResponse:
        """Start many runs."""
        return await self._starter.start_batch(request)

    async def GetRun(
        self, request: runs_pb2.GetRunRequest, context: Context
    ) -> runs_pb2.GetRunResponse:
        """One run, by id or key."""
        namespace, run_id = namespace_of(request.namespace), request.run_id
        if request.WhichOneof("run") == "key":
            run_id = await self._lookups.run_id_of_key(namespace, request.key)
        if request.at_sequence:
            past, run = await self._pasts.read(namespace, run_id, request.at_sequence)
            return runs_pb2.GetRunResponse(run=past.run(run))
        run = await self._lookups.run(namespace, run_id)
        snapshot = ""
        if request.view == types_pb2.VIEW_FULL:
            snapshot = await self._lookups.snapshot(namespace, run.content_hash)
        return runs_pb2.GetRunResponse(run=await self._render(run, snapshot))

    async def ListRuns(
        self, request: runs_pb2.ListRunsRequest, context: Context
    ) -> runs_pb2.ListRunsResponse:
        """A page of runs."""
        return await self._lists.list(request)

    async def CountRuns(
        self, request: runs_pb2.CountRunsRequest, context: Context
    ) -> runs_pb2.CountRunsResponse:
        """How many runs there are."""
        return await self._lists.count(request)

    async def CancelRun(
        self, request: runs_pb2.CancelRunRequest, context: Context
    ) -> runs_pb2.CancelRunResponse:
        """Ask a run to stop."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        cancelled = await self._engine.cancel_run(
            CancelRun(
                namespace=namespace,
                run_id=request.run_id,
                principal=principal,
                reason=request.reason,
                force=request.force,
                request_id=request.request_id or None,
                digest=digest_of(request, namespace=namespace, principal=principal),
            )
        )
        run = await self._lookups.run(namespace, cancelled.run_id)
        return runs_pb2.CancelRunResponse(run=await self._render(run), replayed=cancelled.replayed)

    async def ResumeRun(
        self, request: runs_pb2.ResumeRunRequest, context: Context
    ) -> runs_pb2.ResumeRunResponse:
        """Take a finished run up again."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        resumed = await self._engine.resume_run(
            ResumeRun(
                namespace=namespace,
                run_id=request.run_id,
                principal=principal,
                mode=resume_mode(request.mode),
                from_step_id=request.from_step_id or None,
                request_id=request.request_id or None,
                digest=digest_of(request, namespace=namespace, principal=principal),
            )
        )
        run = await self._lookups.run(namespace, resumed.run_id)
        return runs_pb2.ResumeRunResponse(run=await self._render(run), replayed=resumed.replayed)

    async def DismissRun(
        self, request: runs_pb2.DismissRunRequest, context: Context
    ) -> runs_pb2.DismissRunResponse:
        """Take a run off the lists of what needs attention."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        command = DismissRun(
            namespace=namespace,
            run_id=request.run_id,
            dismissed=not request.undo,
            request_id=request.request_id or None,
            digest=digest_of(request, namespace=namespace, principal=principal),
        )
        dismissed = await dismiss_run(self._engine.reads, command)
        run = await self._lookups.run(namespace, request.run_id)
        return runs_pb2.DismissRunResponse(run=await self._render(run), replayed=dismissed.replayed)

    async def DeleteRun(
        self, request: runs_pb2.DeleteRunRequest, context: Context
    ) -> runs_pb2.DeleteRunResponse:
        """Remove a run with its child runs."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        command = DeleteRun(
            namespace=namespace,
            run_id=request.run_id,
            request_id=request.request_id or None,
            digest=digest_of(request, namespace=namespace, principal=principal),
        )
        deleted = await delete_run(self._engine.reads, command)
        return runs_pb2.DeleteRunResponse(deleted=deleted.runs, replayed=deleted.replayed)

    async def ExplainRun(
        self, request: runs_pb2.ExplainRunRequest, context: Context
    ) -> runs_pb2.ExplainRunResponse:
        """Why a run is not moving."""
        namespace = namespace_of(request.namespace)
        explanation = await self._explainer.explain(namespace, request.run_id)
        return runs_pb2.ExplainRunResponse(explanation=explanation)

    async def AwaitRun(
        self, request: runs_pb2.AwaitRunRequest, context: Context
    ) -> runs_pb2.AwaitRunResponse:
        """A run when it has ended, or as it is when the time is over."""
        timeout = LONG_POLL_MAX
        if request.HasField("timeout"):
            timeout = min(span_of(request.timeout), timeout)
        run = await self._ends.wait(
            namespace_of(request.namespace), request.run_id, timeout_s=timeout.total_seconds()
        )
        return runs_pb2.AwaitRunResponse(run=await self._render(run), done=run.ended_at is not None)

    async def ListSteps(
        self, request: runs_pb2.ListStepsRequest, context: Context
    ) -> runs_pb2.ListStepsResponse:
        """A page of a run's steps."""
        if request.at_sequence:
            return await self._list_past_steps(request)
        await self._lookups.run(namespace_of(request.namespace), request.run_id)
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            page = await steps.list_steps(
                conn,
                run_id=request.run_id,
                limit=page_rows(request.page_size),
                after=StepCursor(*place) if place else None,
                include_superseded=request.include_superseded,
            )
        response = runs_pb2.ListStepsResponse(steps=[render_step(step) for step in page.rows])
        if page.more:
            last = steps.cursor_of(page.rows[-1])
            response.next_page_token = await self._tokens.seal(request, last)
        return response

    async def _list_past_steps(
        self, request: runs_pb2.ListStepsRequest
    ) -> runs_pb2.ListStepsResponse:
        """As many steps of the past as a page may have, and as fit a message."""
        namespace = namespace_of(request.namespace)
        place = await self._tokens.open(request)
        begin = place[0] if place else 0
        past, _ = await self._pasts.read(namespace, request.run_id, request.at_sequence)
        response = runs_pb2.ListStepsResponse()
        weight, end = 0, begin
        for step in islice(past.steps(begin), page_rows(request.page_size)):
            weight += step.ByteSize()
            if weight > _PAST_BYTES and response.steps:
                break
            response.steps.append(step)
            end += 1
        if end < past.step_count:
            response.next_page_token = await self._tokens.seal(request, [end])
        return response

    async def GetStep(
        self, request: runs_pb2.GetStepRequest, context: Context
    ) -> runs_pb2.GetStepResponse:
        """One step."""
        namespace = namespace_of(request.namespace)
        async with self._engine.reads.connect() as conn:
            step = await steps.step_by_id(conn, namespace=namespace, step_id=request.step_id)
        return runs_pb2.GetStepResponse(step=render_step(step))

    async def ListFanOutItems(
        self, request: runs_pb2.ListFanOutItemsRequest, context: Context
    ) -> runs_pb2.ListFanOutItemsResponse:
        """A page of the items of one `foreach`."""
        namespace = namespace_of(request.namespace)
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            await steps.step_by_id(conn, namespace=namespace, step_id=request.step_id)
            page = await list_items(
                conn,
                step_id=request.step_id,
                limit=page_rows(request.page_size),
                status=STATUS_NAMES[request.status] if request.status else None,
                after=place[0] if place else None,
            )
        response = runs_pb2.ListFanOutItemsResponse(items=[render_item(row) for row in page.rows])
        if page.more:
            place = [page.rows[-1].ordinal]
            response.next_page_token = await self._tokens.seal(request, place)
        return response

    async def ListRunEvents(
        self, request: runs_pb2.ListRunEventsRequest, context: Context
    ) -> runs_pb2.ListRunEventsResponse:
        """A page of a run's events."""
        namespace, run_id = namespace_of(request.namespace), request.run_id
        async with self._engine.reads.connect() as conn:
            head = await runs.run_head(conn, namespace=namespace, run_id=run_id)
            if request.after_seq > head.last_seq:
                raise errors.CursorAheadError(
                    run_id, after_seq=request.after_seq, head_seq=head.last_seq
                )
            if request.after_seq < head.oldest_seq - 1:
                raise errors.CursorExpiredError(run_id, oldest_seq=head.oldest_seq)
            page = await list_events(
                conn,
                run_id=run_id,
                after_seq=request.after_seq,
                head_seq=head.last_seq,
                limit=page_rows(request.page_size),
                kinds=kinds_of(request.kinds),
            )
        return runs_pb2.ListRunEventsResponse(
            events=[render_event(event) for event in page.events],
            examined_seq=page.examined_seq,
            oldest_seq=head.oldest_seq,
            head_seq=head.last_seq,
        )

    def StreamRunEvents(  # type: ignore[override]  # writes its frames instead of yielding
        self, request: runs_pb2.StreamRunEventsRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """A run's events from a cursor to the end; no coroutine, whose frame streams would hold."""
        return self._streams.runs.serve(request, context)

    def StreamNamespaceEvents(  # type: ignore[override]  # writes its frames as well
        self, request: runs_pb2.StreamNamespaceEventsRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """The events of all runs of a namespace."""
        return self._streams.namespaces.serve(request, context)

    async def _render(self, run: RunRow, snapshot: str = "") -> types_pb2.Run:
        return render_run(
            run,
            summary=await self._lookups.summary(run),
            snapshot=snapshot,
            place=await self._lookups.place(run),
        )
