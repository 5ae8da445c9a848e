"""WorkflowService: storing, finding, checking, formatting and drawing definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc

from runkon.v1 import types_pb2, workflows_pb2, workflows_pb2_grpc
from runkon_server.api.definitions import LABEL, work_on
from runkon_server.api.drawing import Drawings
from runkon_server.api.once import Once
from runkon_server.api.parsing.checks import namespace_of, page_rows
from runkon_server.api.render import render_diagnostic, render_workflow
from runkon_server.api.render.workflows import render_unstored
from runkon_server.api.validating import Validator
from runkon_server.dsl.diagnostics import first_problems, has_errors
from runkon_server.dsl.format import format_text
from runkon_server.errors import WorkflowDeletedError
from runkon_server.store.reads import workflows
from runkon_server.store.workflows import NewVersion, delete_name, put_version

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.definitions import CheckedSource, Definitions
    from runkon_server.api.lookups import Lookups
    from runkon_server.api.once import Answer
    from runkon_server.api.page_tokens import PageTokens
    from runkon_server.runtime.commands import PinnedDefinition
    from runkon_server.store.rows import Page, WorkflowRow

__all__ = ["WorkflowEngine", "WorkflowService"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


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
        once = Once(self._engine, self._lookups, request, "PutWorkflow")
        answer = await once.earlier()
        replayed = answer is not None
        checked = await self._check(request)
        stored: list[WorkflowRow] = []
        if answer is None:
            new = _new_version(once, request, checked.accept(strictly=request.strict))

            async def body(conn: AsyncConnection) -> Answer:
                version, created = await put_version(conn, new)
                # Here, where nobody can delete it before it is read.
                row = await workflows.workflow(
                    conn, namespace=new.namespace, name=new.name, version=version, full=False
                )
                stored[:] = [row]
                return {"name": new.name, "version": version, "created": created}

            answer, replayed = await once.perform(body)
        shown = render_workflow(stored[0]) if stored else await self._replayed(once, answer)
        warnings = [render_diagnostic(each, checked.source) for each in checked.diagnostics]
        return workflows_pb2.PutWorkflowResponse(
            workflow=shown,
            created=answer["created"],
            diagnostics=warnings,
            replayed=replayed,
        )

    async def _replayed(self, once: Once, answer: Answer) -> workflows_pb2.Workflow:
        """The version that an earlier request has stored, as far as it is still there."""
        place: dict[str, Any] = {
            "namespace": once.namespace,
            "name": answer["name"],
            "version": answer["version"],
        }
        try:
            async with self._engine.reads.connect() as conn:
                return render_workflow(await workflows.workflow(conn, **place, full=False))
        except WorkflowDeletedError:
            return workflows_pb2.Workflow(**place)

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

    async def DeleteWorkflow(
        self, request: workflows_pb2.DeleteWorkflowRequest, context: Context
    ) -> workflows_pb2.DeleteWorkflowResponse:
        """Take a name with all its versions away."""
        once = Once(self._engine, self._lookups, request, "DeleteWorkflow")

        async def body(conn: AsyncConnection) -> Answer:
            deleted = await delete_name(
                conn, namespace=once.namespace, name=request.name, principal=once.principal
            )
            return {"deleted": deleted}

        answer, replayed = await once.perform(body)
        return workflows_pb2.DeleteWorkflowResponse(deleted=answer["deleted"], replayed=replayed)

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


def _new_version(
    once: Once, request: workflows_pb2.PutWorkflowRequest, pinned: PinnedDefinition
) -> NewVersion:
    definition = pinned.definition
    return NewVersion(
        namespace=once.namespace,
        name=definition.name,
        content_hash=pinned.content_hash,
        title=definition.title,
        description=definition.description,
        source=request.source,
        snapshot=pinned.snapshot,
        created_by=once.principal,
        output_schemas=dict(request.output_schemas),
        snippets=dict(request.snippets),
    )
