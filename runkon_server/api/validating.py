"""ValidateWorkflow: a source, checked with the stored workflows that it calls, and the workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from runkon_server.api.definitions import LABEL, world_of
from runkon_server.dsl import limits, snapshot
from runkon_server.dsl.ast import Definition
from runkon_server.dsl.checking.offers import where_served
from runkon_server.dsl.checking.stored import NOT_STORED, unreadable
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import workflow_refs
from runkon_server.dsl.validate_set import validate_set
from runkon_server.store.reads.runs import snapshots
from runkon_server.store.reads.workers import offers_in
from runkon_server.store.reads.workflows import newest_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon.v1 import workflows_pb2
    from runkon_server.api.definitions import CheckedSource
    from runkon_server.dsl.check import World
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.parser import ParseResult

__all__ = ["Validator"]

CHILDREN_MAX: Final = 200
CHILDREN_BYTES: Final = 16 * 1024 * 1024
"""Of snapshots; looking for more ends when they are as long."""
_AT_ONCE: Final = 16


class Reader(Protocol):
    """The part of the engine that is read from."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""


class Validator:
    """Finds what a check by itself cannot know."""

    def __init__(self, engine: Reader) -> None:
        self._engine = engine

    async def problems(
        self,
        request: workflows_pb2.ValidateWorkflowRequest,
        namespace: str,
        checked: CheckedSource,
    ) -> tuple[Diagnostic, ...]:
        """All that is wrong with the source of a request.

        Args:
            checked: the source by itself.
        """
        definition = checked.definition
        if definition is not None and not request.check_served and not _calls(definition):
            return checked.judged(strictly=request.strict)
        result = await asyncio.to_thread(parse, request.source, LABEL)
        world = world_of(request.output_schemas, request.snippets)
        async with self._engine.reads.connect() as conn:
            children = await _load_children(conn, namespace, result)
            if request.check_served:
                world = where_served(world, await offers_in(conn, namespace=namespace), namespace)
        world = replace(world, load=children.get)
        return await asyncio.to_thread(_judge, result, world, strictly=request.strict)


def _judge(result: ParseResult, world: World, *, strictly: bool) -> tuple[Diagnostic, ...]:
    return validate_set({LABEL: result}, world, is_strict=strictly)[LABEL].diagnostics


def _calls(definition: Definition) -> set[str]:
    """The names of other workflows."""
    return set(workflow_refs(definition)) - {definition.name}


async def _load_children(
    conn: AsyncConnection, namespace: str, result: ParseResult
) -> dict[str, Definition | str]:
    """What is stored under the names of called workflows, or why it cannot be told.

    Level by level, as deep as calls may go; what is not looked at is not in the answer.
    """
    root = result.definition or result.sketch
    if root is None:
        return {}
    found: dict[str, Definition | str] = {}
    wanted, size = sorted(_calls(root)), 0
    for _ in range(limits.CALL_DEPTH):
        below: set[str] = set()
        for start in range(0, len(wanted), _AT_ONCE):
            names = wanted[start : start + min(_AT_ONCE, CHILDREN_MAX - len(found))]
            if not names or size > CHILDREN_BYTES:
                return found
            documents = await _newest(conn, namespace, names)
            size += sum(map(len, documents.values()))
            loaded = await asyncio.to_thread(_read_all, names, documents)
            found |= loaded
            below.update(
                *(_calls(each) for each in loaded.values() if isinstance(each, Definition))
            )
        wanted = sorted(below - found.keys() - {root.name})
    return found


async def _newest(conn: AsyncConnection, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """The snapshots of the newest versions, by name."""
    newest = await newest_hashes(conn, [(namespace, name) for name in names])
    hashes = {name: content_hash for (_, name), (_, content_hash) in newest.items()}
    found = await snapshots(conn, namespace=namespace, content_hashes=[*hashes.values()])
    return {name: found[each] for name, each in hashes.items() if each in found}


def _read_all(names: Iterable[str], documents: Mapping[str, str]) -> dict[str, Definition | str]:
    found: dict[str, Definition | str] = {}
    for name in names:
        if name not in documents:
            found[name] = NOT_STORED
            continue
        try:
            found[name] = snapshot.load(documents[name])
        except snapshot.SnapshotError as error:
            found[name] = unreadable(error)
    return found
