"""WorkflowService: storing, finding, checking, formatting and drawing definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc

from runkon.v1 import types_pb2, workflows_pb2, workflows_pb2_grpc
from runkon_server import errors
from runkon_server.api.definitions import LABEL, work_on
from runkon_server.api.digests import digest_of
from runkon_server.api.drawing import Drawings
from runkon_server.api.identity import current_principal
from runkon_server.api.parsing.checks import namespace_of, page_rows
from runkon_server.api.render import render_diagnostic, render_workflow
from runkon_server.api.render.workflows import render_unstored
from runkon_server.api.validating import Validator
from runkon_server.dsl.diagnostics import first_problems, has_errors
from runkon_server.dsl.format import format_text
from runkon_server.store.reads import workflows
from runkon_server.store.transactions import in_transaction
from runkon_server.store.workflows import NewVersion, claim_request, put_version, store_response

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.definitions import CheckedSource, Definitions
    from runkon_server.api.lookups import Lookups
    from runkon_server.api.page_tokens import PageTokens
    from runkon_server.runtime.commands import PinnedDefinition
    from runkon_server.store.rows import Page, WorkflowRow

__all__ = ["WorkflowEngine", "WorkflowService"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_METHOD: Final = "PutWorkflow"


class WorkflowEngine(Protocol):
    """The part of the engine that WorkflowService needs."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads and short transactions."""


class WorkflowService(workflows_pb2_grpc.WorkflowServiceServicer):
    """Keeps the definitions that runs are started from.

    Args:
        engine: where they are stored.
        lookups: finds earlier requests.
        definitions: reads and checks sources.
        tokens: makes and reads page tokens.
    """

    def __init__(
        self,
        engine: WorkflowEngine,
        lookups: Lookups,
        definitions: Definitions,
        tokens: PageTokens,
    ) -> None:
        self._engine = engine
        self._lookups = lookups
        self._definitions = definitions
        self._tokens = tokens
        self._drawings = Drawings(engine, lookups, definitions)
        self._validator = Validator(engine)

    async def PutWorkflow(
        self, request: workflows_pb2.PutWorkflowRequest, context: Context
    ) -> workflows_pb2.PutWorkflowResponse:
        """Store a definition as a new version, unless the newest has this very content."""
        put = _Put(request)
        answer = await self._earlier(put)
        replayed = answer is not None
        checked = await self._check(request)
        if answer is None:
            pinned = checked.accept(strictly=request.strict)
            answer = await self._store(put, pinned)
            if answer is None:  # the same request id, at the same moment
                answer = await self._earlier(put)
                replayed = True
        assert answer is not None
        name, version, created = answer
        async with self._engine.reads.connect() as conn:
            row = await workflows.workflow(
                conn, namespace=put.namespace, name=name, version=version, full=False
            )
        warnings = [render_diagnostic(each, checked.source) for each in checked.diagnostics]
        return workflows_pb2.PutWorkflowResponse(
            workflow=render_workflow(row),
            created=created,
            diagnostics=warnings,
            replayed=replayed,
        )

    async def _earlier(self, put: _Put) -> tuple[str, int, bool] | None:
        """The answer to an earlier request of the same id."""
        if not put.request_id:
            return None
        stored = await self._lookups.request(put.namespace, put.request_id)
        if stored is None:
            return None
        if stored.digest != put.digest:
            raise errors.RequestIdReusedError(put.request_id)
        answer = stored.response
        return answer["name"], answer["version"], answer["created"]

    async def _store(self, put: _Put, pinned: PinnedDefinition) -> tuple[str, int, bool] | None:
        """Name, version and whether it is new; None if another call took the request id."""
        definition, request = pinned.definition, put.request
        new = NewVersion(
            namespace=put.namespace,
            name=definition.name,
            content_hash=pinned.content_hash,
            title=definition.title,
            description=definition.description,
            source=request.source,
            snapshot=pinned.snapshot,
            created_by=put.principal,
            output_schemas=dict(request.output_schemas),
            snippets=dict(request.snippets),
        )

        async def body(conn: AsyncConnection) -> tuple[str, int, bool] | None:
            namespace, request_id = put.namespace, put.request_id
            if request_id and not await claim_request(
                conn,
                namespace=namespace,
                request_id=request_id,
                method=_METHOD,
                digest=put.digest,
            ):
                return None
            version, created = await put_version(conn, new)
            if request_id:
                answer = {"name": new.name, "version": version, "created": created}
                await store_response(
                    conn, namespace=namespace, request_id=request_id, response=answer
                )
            return new.name, version, created

        return await in_transaction(self._engine.reads, body)

    async def GetWorkflow(
        self, request: workflows_pb2.GetWorkflowRequest, context: Context
    ) -> workflows_pb2.GetWorkflowResponse:
        """One version of a workflow."""
        async with self._engine.reads.connect() as conn:
            row = await workflows.workflow(
                conn,
                namespace=namespace_of(request.namespace),
                name=request.name,
                version=request.version or None,
                full=request.view != types_pb2.VIEW_BASIC,
            )
        return workflows_pb2.GetWorkflowResponse(workflow=render_workflow(row))

    async def ListWorkflows(
        self, request: workflows_pb2.ListWorkflowsRequest, context: Context
    ) -> workflows_pb2.ListWorkflowsResponse:
        """A page of workflows, or of the versions of one."""
        place = await self._tokens.open(request)
        page = await self._page(request, place[0] if place else None)
        response = workflows_pb2.ListWorkflowsResponse(
            workflows=[render_workflow(row) for row in page.rows]
        )
        if page.more:
            last = page.rows[-1]
            where = last.version if request.name else last.name
            response.next_page_token = await self._tokens.seal(request, [where])
        return response

    async def _page(
        self,
        request: workflows_pb2.ListWorkflowsRequest,
        place: Any,  # noqa: ANN401 - a name or a version
    ) -> Page[WorkflowRow]:
        namespace, limit = namespace_of(request.namespace), page_rows(request.page_size)
        full = request.view == types_pb2.VIEW_FULL
        async with self._engine.reads.connect() as conn:
            if request.name:
                return await workflows.versions(
                    conn,
                    namespace=namespace,
                    name=request.name,
                    limit=limit,
                    below=place,
                    full=full,
                )
            return await workflows.newest_workflows(
                conn, namespace=namespace, limit=limit, after=place, full=full
            )

    async def ValidateWorkflow(
        self, request: workflows_pb2.ValidateWorkflowRequest, context: Context
    ) -> workflows_pb2.ValidateWorkflowResponse:
        """What is wrong with a definition, as an answer."""
        checked, namespace = await self._check(request), namespace_of(request.namespace)
        problems = await self._validator.problems(request, namespace, checked)
        response = workflows_pb2.ValidateWorkflowResponse(
            valid=not has_errors(problems),
            diagnostics=[render_diagnostic(each, checked.source) for each in problems],
        )
        if checked.definition is not None:
            unstored = render_unstored(checked, request, namespace)
            response.workflow.CopyFrom(unstored)
        return response

    async def FormatWorkflow(
        self, request: workflows_pb2.FormatWorkflowRequest, context: Context
    ) -> workflows_pb2.FormatWorkflowResponse:
        """A source in its canonical layout."""
        result = await work_on(request.source, format_text, LABEL)
        problems = first_problems(result.diagnostics)
        return workflows_pb2.FormatWorkflowResponse(
            formatted=result.text or "",
            changed=result.text is not None and result.text != request.source,
            diagnostics=[render_diagnostic(each, result.source) for each in problems],
        )

    async def GraphWorkflow(
        self, request: workflows_pb2.GraphWorkflowRequest, context: Context
    ) -> workflows_pb2.GraphWorkflowResponse:
        """A picture of a source, a stored workflow or a run."""
        return workflows_pb2.GraphWorkflowResponse(graph=await self._drawings.draw(request))

    async def _check(
        self, request: workflows_pb2.PutWorkflowRequest | workflows_pb2.ValidateWorkflowRequest
    ) -> CheckedSource:
        return await self._definitions.check(
            request.source, request.output_schemas, request.snippets
        )


class _Put:
    """A PutWorkflow with what identifies it."""

    def __init__(self, request: workflows_pb2.PutWorkflowRequest) -> None:
        self.request = request
        self.request_id = request.request_id
        self.namespace = namespace_of(request.namespace)
        self.principal = current_principal()
        self.digest = ""
        if self.request_id:
            self.digest = digest_of(request, namespace=self.namespace, principal=self.principal)
