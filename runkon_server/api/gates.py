"""GateService: finding gates and answering them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypedDict

import grpc

from runkon.v1 import gates_pb2, gates_pb2_grpc
from runkon_server.api.digests import digest_of
from runkon_server.api.identity import current_principal
from runkon_server.api.parsing.checks import namespace_of, page_rows, span_of
from runkon_server.api.parsing.gates import pull_request_of
from runkon_server.api.render import render_gate
from runkon_server.api.render.gates import STATE_NAMES
from runkon_server.runtime.commands import (
    GateResolved,
    PullRequestReported,
    ReportPullRequest,
    ResolveGate,
)
from runkon_server.store.reads import gates
from runkon_server.store.reads.gates import GateCursor, GateQuery

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.lookups import Lookups
    from runkon_server.api.page_tokens import PageTokens

__all__ = ["GateEngine", "GateService", "GateStreams"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
AGE_MAX: Final = timedelta(days=365_000)
"""No gate is older. A duration may be ten times as long, further back than PostgreSQL counts."""


class GateEngine(Protocol):
    """The part of the engine that GateService needs."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""

    async def resolve_gate(self, command: ResolveGate) -> GateResolved:
        """Cast a vote."""

    async def report_pull_request(self, command: ReportPullRequest) -> PullRequestReported:
        """Tell a gate how its pull request stands."""


class GateStreams(Protocol):
    """Who serves StreamGates."""

    def serve(
        self, request: gates_pb2.StreamGatesRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """Write the frames of one stream; never return."""


class GateService(gates_pb2_grpc.GateServiceServicer):
    """Finds and answers gates.

    Args:
        engine: takes the votes.
        lookups: finds what is there.
        tokens: makes and reads page tokens.
        streams: serves streams of gates.
    """

    def __init__(
        self, engine: GateEngine, lookups: Lookups, tokens: PageTokens, streams: GateStreams
    ) -> None:
        self._engine = engine
        self._lookups = lookups
        self._tokens = tokens
        self._streams = streams

    async def ListGates(
        self, request: gates_pb2.ListGatesRequest, context: Context
    ) -> gates_pb2.ListGatesResponse:
        """A page of gates."""
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            page = await gates.list_gates(
                conn,
                _query_of(request),
                limit=page_rows(request.page_size),
                after=_cursor_of(place) if place else None,
            )
        response = gates_pb2.ListGatesResponse(gates=[render_gate(gate) for gate in page.rows])
        if page.more:
            last = gates.cursor_of(page.rows[-1])
            where: list[str | int] = [last.is_closed, last.opened_at.isoformat(), last.id]
            response.next_page_token = await self._tokens.seal(request, where)
        return response

    async def GetGate(
        self, request: gates_pb2.GetGateRequest, context: Context
    ) -> gates_pb2.GetGateResponse:
        """One gate with its votes."""
        gate = await self._lookups.gate(namespace_of(request.namespace), request.gate_id)
        return gates_pb2.GetGateResponse(gate=render_gate(gate))

    async def ResolveGate(
        self, request: gates_pb2.ResolveGateRequest, context: Context
    ) -> gates_pb2.ResolveGateResponse:
        """Cast the caller's vote."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        resolved = await self._engine.resolve_gate(
            ResolveGate(
                namespace=namespace,
                principal=principal,
                approve=request.decision == gates_pb2.GATE_DECISION_APPROVE,
                **_target_of(request),
                feedback=request.feedback or None,
                selections=tuple(request.selections),
                on_behalf_of=request.on_behalf_of or None,
                request_id=request.request_id or None,
                digest=digest_of(request, namespace=namespace, principal=principal),
            )
        )
        gate = await self._lookups.gate(namespace, resolved.gate_id)
        return gates_pb2.ResolveGateResponse(gate=render_gate(gate), replayed=resolved.replayed)

    async def ReportPullRequest(
        self, request: gates_pb2.ReportPullRequestRequest, context: Context
    ) -> gates_pb2.ReportPullRequestResponse:
        """Tell a gate how its pull request stands."""
        namespace, principal = namespace_of(request.namespace), current_principal()
        reported = await self._engine.report_pull_request(
            ReportPullRequest(
                namespace=namespace,
                principal=principal,
                pull_request=pull_request_of(request.pull_request),
                **_target_of(request),
                request_id=request.request_id or None,
                digest=digest_of(request, namespace=namespace, principal=principal),
            )
        )
        gate = await self._lookups.gate(namespace, reported.gate_id)
        return gates_pb2.ReportPullRequestResponse(
            gate=render_gate(gate),
            pending_reason=reported.pending_reason,
            replayed=reported.replayed,
        )

    def StreamGates(  # type: ignore[override]  # writes its frames instead of yielding
        self, request: gates_pb2.StreamGatesRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """The gates that wait, and what becomes of them."""
        return self._streams.serve(request, context)


class _Target(TypedDict):
    """How commands name a gate."""

    gate_id: str | None
    run_id: str | None
    key: str | None
    gate_name: str | None


def _target_of(
    request: gates_pb2.ResolveGateRequest | gates_pb2.ReportPullRequestRequest,
) -> _Target:
    if request.WhichOneof("target") != "run_gate":
        return _Target(gate_id=request.gate_id, run_id=None, key=None, gate_name=None)
    by_run = request.run_gate
    by_key = by_run.WhichOneof("run") == "key"
    return _Target(
        gate_id=None,
        run_id=None if by_key else by_run.run_id,
        key=by_run.key if by_key else None,
        gate_name=by_run.gate_name,
    )


def _query_of(request: gates_pb2.ListGatesRequest) -> GateQuery:
    return GateQuery(
        namespace=namespace_of(request.namespace),
        run_id=request.run_id or None,
        gate_type=request.type or None,
        workflow_name=request.workflow_name or None,
        state=STATE_NAMES[request.state] if request.state else None,
        min_age=min(span_of(request.min_age), AGE_MAX) if request.HasField("min_age") else None,
    )


def _cursor_of(place: list[Any]) -> GateCursor:
    is_closed, opened_at, gate_id = place
    return GateCursor(is_closed, datetime.fromisoformat(opened_at), gate_id)
