"""Definitions made ready to run, kept at hand by content hash."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server import errors
from runkon_server.core.engine import compile_plan
from runkon_server.dsl import snapshot
from runkon_server.dsl.substitute import ExpansionTooLargeError, substitute
from runkon_server.runtime.schemas import stored_schemas
from runkon_server.store.loading import load_definition
from runkon_server.store.reads.workflows import newest_hashes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.core.plan import Plan
    from runkon_server.dsl.ast import Definition
    from runkon_server.runtime.commands import PinnedDefinition

PROGRAMS_MAX: Final = 256


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Program:
    """What all runs of one content hash share."""

    content_hash: str
    definition: Definition
    plan: Plan
    output_schemas: Mapping[str, str]
    """Texts by name, as are the snippets."""
    snippets: Mapping[str, str]

    def snippets_for(
        self, names: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """Names and texts, placeholders filled in; empty text: not stored, or grown too large."""
        return tuple((name, self._expanded(name, variables)) for name in names)

    def _expanded(self, name: str, variables: Mapping[str, str]) -> str:
        try:
            return substitute(self.snippets.get(name, ""), variables)
        except ExpansionTooLargeError:
            return ""

    def schema_for(self, name: str | None) -> tuple[str, str] | None:
        """Name and text of an output schema; empty text: not stored. None: there is no name."""
        return None if name is None else (name, self.output_schemas.get(name, ""))


class Programs:
    """Programs by content hash, the least recently used dropped first."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[str, str], Program] = OrderedDict()
        self._stored: set[tuple[str, str]] = set()

    def of(self, namespace: str, pinned: PinnedDefinition) -> Program:
        """The program of a definition at hand."""
        known = self.at_hand(namespace, pinned.content_hash)
        if known is not None:
            return known
        return self._add(
            namespace,
            pinned.content_hash,
            pinned.definition,
            pinned.output_schemas,
            pinned.snippets,
        )

    def at_hand(self, namespace: str, content_hash: str) -> Program | None:
        """A program that is known here."""
        known = self._programs.get((namespace, content_hash))
        if known is not None:
            self._programs.move_to_end((namespace, content_hash))
        return known

    def _add(
        self,
        namespace: str,
        content_hash: str,
        definition: Definition,
        output_schemas: Mapping[str, str],
        snippets: Mapping[str, str],
    ) -> Program:
        program = Program(
            content_hash=content_hash,
            definition=definition,
            plan=compile_plan(definition, stored_schemas(output_schemas)),
            output_schemas=output_schemas,
            snippets=snippets,
        )
        self._programs[(namespace, content_hash)] = program
        if len(self._programs) > PROGRAMS_MAX:
            dropped, _ = self._programs.popitem(last=False)
            self._stored.discard(dropped)
        return program

    def is_stored(self, namespace: str, content_hash: str) -> bool:
        """Whether the definition is known to be in the database."""
        return (namespace, content_hash) in self._stored

    def mark_stored(self, namespace: str, content_hash: str) -> None:
        """A commit with the definition is durable."""
        if (namespace, content_hash) in self._programs:
            self._stored.add((namespace, content_hash))

    async def load(self, reads: AsyncEngine, namespace: str, content_hash: str) -> Program:
        """The program of a pinned definition, read from the database if it is not known here.

        Raises:
            WorkflowNotFoundError: the database does not have it.
        """
        known = self.at_hand(namespace, content_hash)
        if known is not None:
            return known
        async with reads.connect() as conn:
            return await self._read(conn, namespace, content_hash)

    async def _read(self, conn: AsyncConnection, namespace: str, content_hash: str) -> Program:
        stored = await load_definition(conn, namespace, content_hash)
        if stored is None:
            raise errors.WorkflowNotFoundError(content_hash)
        return self._add(
            namespace,
            content_hash,
            snapshot.load(stored.snapshot),
            stored.output_schemas,
            stored.snippets,
        )

    async def newest(
        self, reads: AsyncEngine, namespace: str, names: Sequence[str]
    ) -> dict[str, tuple[int, Program] | ValueError]:
        """The newest version of each workflow, with its number; unknown names are left out.

        A definition that a newer server stored, and this one cannot run, is told as its error.
        """
        found: dict[str, tuple[int, Program] | ValueError] = {}
        async with reads.connect() as conn:
            hashes = await newest_hashes(conn, [(namespace, name) for name in names])
            for (_, name), (version, content_hash) in hashes.items():
                program = self.at_hand(namespace, content_hash)
                try:
                    program = program or await self._read(conn, namespace, content_hash)
                except ValueError as error:
                    found[name] = error
                else:
                    found[name] = (version, program)
        return found
