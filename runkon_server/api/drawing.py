"""GraphWorkflow: from what a caller names to its picture.

What this version does not run can be drawn all the same, so stored definitions are read here
without the refusals that `Definitions.load` adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from runkon.v1 import workflows_pb2
from runkon_server import errors
from runkon_server.api.definitions import refusal_of, work_on
from runkon_server.api.parsing.checks import namespace_of
from runkon_server.api.parsing.runs import parse_workflow_name
from runkon_server.dsl import snapshot
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.graph import GraphFormat, graph
from runkon_server.store.reads import runs, steps, workflows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.definitions import Definitions
    from runkon_server.api.lookups import Lookups
    from runkon_server.dsl.ast import Definition

__all__ = ["Drawings"]

_FORMATS: Final[Mapping[int, GraphFormat]] = {
    workflows_pb2.GRAPH_FORMAT_UNSPECIFIED: GraphFormat.MERMAID,
    workflows_pb2.GRAPH_FORMAT_MERMAID: GraphFormat.MERMAID,
    workflows_pb2.GRAPH_FORMAT_DOT: GraphFormat.DOT,
    workflows_pb2.GRAPH_FORMAT_JSON: GraphFormat.JSON,
    workflows_pb2.GRAPH_FORMAT_SVG: GraphFormat.SVG,
}


class Reader(Protocol):
    """The part of the engine that is read from."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""


class Drawings:
    """Draws sources, stored workflows and runs.

    Args:
        engine: where they are stored.
        lookups: finds runs.
        definitions: reads sources.
    """

    def __init__(self, engine: Reader, lookups: Lookups, definitions: Definitions) -> None:
        self._engine = engine
        self._lookups = lookups
        self._definitions = definitions

    async def draw(self, request: workflows_pb2.GraphWorkflowRequest) -> str:
        """The picture that a checked request asks for.

        Raises:
            DslSyntaxError, DslLimitError: the source cannot be read.
            DslUnsupportedError: a newer server stored the definition, with unknown steps.
            WorkflowNotFoundError, RunNotFoundError: the namespace has no such thing.
        """
        namespace, graph_format = namespace_of(request.namespace), _FORMATS[request.format]
        match request.WhichOneof("subject"):
            case "source":
                definition = await self._of_source(request.source)
                return await work_on(request.source, _draw_read, definition, graph_format)
            case "workflow":
                document = await self._of_workflow(namespace, request.workflow)
                return await work_on(document, _draw, graph_format)
            case _:
                document, statuses = await self._of_run(namespace, request.run_id)
                return await work_on(document, _draw, graph_format, statuses)

    async def _of_source(self, source: str) -> Definition:
        checked = await self._definitions.check(source, {}, {})
        if checked.definition is None:
            problems = checked.diagnostics
            raise refusal_of([each for each in problems if each.severity is Severity.ERROR])
        return checked.definition

    async def _of_workflow(self, namespace: str, workflow: str) -> str:
        parsed = parse_workflow_name(workflow)
        assert parsed is not None
        name, version = parsed
        async with self._engine.reads.connect() as conn:
            row = await workflows.workflow(
                conn, namespace=namespace, name=name, version=version, full=True
            )
        return row.snapshot or ""

    async def _of_run(self, namespace: str, run_id: str) -> tuple[str, dict[str, str]]:
        run = await self._lookups.run(namespace, run_id)
        document = await self._lookups.snapshot(namespace, run.content_hash)
        if not document:  # purged since
            async with self._engine.reads.connect() as conn:
                raise await runs.refusal_of_absent(conn, namespace=namespace, run_id=run_id)
        async with self._engine.reads.connect() as conn:
            return document, await steps.step_statuses(conn, run_id=run_id)


def _draw_read(_source: str, definition: Definition, graph_format: GraphFormat) -> str:
    return graph(definition, graph_format)


def _draw(
    document: str, graph_format: GraphFormat, statuses: Mapping[str, str] | None = None
) -> str:
    try:
        definition = snapshot.load(document)
    except snapshot.SnapshotError as error:
        raise errors.DslUnsupportedError([errors.Violation("definition", str(error))]) from error
    return graph(definition, graph_format, statuses=statuses)
