"""What servicers look up, each inside a namespace; many calls share a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from runkon_server.api.coalesce import Coalescer
from runkon_server.api.places import find_places, is_in_a_tree
from runkon_server.core.records import RunRecord
from runkon_server.core.summary import summarize
from runkon_server.errors import WorkflowNotFoundError
from runkon_server.store.loading import load_definition
from runkon_server.store.reads import gates, requests, runs, steps, workflows

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.definitions import Definitions
    from runkon_server.api.render.runs import Place
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import PinnedDefinition
    from runkon_server.store.quick_reads import QuickReads
    from runkon_server.store.rows import GateRow, RunRow, StoredRequest

__all__ = ["Lookups", "Reader"]

SUMMARY_BYTES: Final = 1024 * 1024


class Reader(Protocol):
    """The part of the engine that is read from."""

    @property
    def ambient(self) -> Ambient:
        """Its clock."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""

    @property
    def quick_reads(self) -> QuickReads:
        """For what nearly every call asks."""


class Lookups:
    """Reads on the engine's pool.

    Args:
        engine: started before the first read.
        definitions: where stored definitions are kept at hand.
    """

    def __init__(self, engine: Reader, definitions: Definitions) -> None:
        self._engine = engine
        self._definitions = definitions
        self._runs = Coalescer(self._fetch_runs, engine.ambient.sleep)
        self._newest = Coalescer(self._fetch_newest, engine.ambient.sleep)

    async def _fetch_runs(self, run_ids: Collection[str]) -> dict[str, RunRow]:
        return await runs.known_runs(self._engine.quick_reads, run_ids)

    async def _fetch_newest(
        self, names: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[int, str]]:
        return await workflows.newest_versions(self._engine.quick_reads, names)

    async def run(self, namespace: str, run_id: str) -> RunRow:
        """One run.

        Raises:
            RunNotFoundError: the namespace has no such run.
            RunPurgedError: it had one, which was removed.
        """
        row = await self._runs.get(run_id)
        if row is not None and row.namespace == namespace:
            return row
        async with self._engine.reads.connect() as conn:
            raise await runs.refusal_of_absent(conn, namespace=namespace, run_id=run_id)

    async def run_id_of_key(self, namespace: str, key: str) -> str:
        """The run that holds the key now, or held it last.

        Raises:
            RunNotFoundError: the key was never used in this namespace.
        """
        async with self._engine.reads.connect() as conn:
            return await runs.run_id_of_key(conn, namespace=namespace, key=key)

    async def summary(self, run: RunRow) -> str | None:
        """What the run came to, line by line; None until it has ended."""
        if run.ended_at is None:
            return None
        async with self._engine.reads.connect() as conn:
            outlines = await steps.step_outlines(conn, run_id=run.id)
        record = RunRecord(
            run_id=run.id,
            workflow_name=run.workflow_name,
            status=run.status,
            inputs=run.inputs,
            body_error=run.body_error,
        )
        text = summarize(record, outlines, run.error)
        return text.encode()[:SUMMARY_BYTES].decode(errors="ignore")

    async def place(self, run: RunRow) -> Place | None:
        """Where the run is, with the runs above and below it; None if its row says all of it."""
        if not is_in_a_tree(run):
            return None
        async with self._engine.reads.connect() as conn:
            return (await find_places(conn, [run])).get(run.id)

    async def snapshot(self, namespace: str, content_hash: str) -> str:
        """The stored definition of this hash; empty if it is gone."""
        async with self._engine.reads.connect() as conn:
            found = await runs.snapshots(conn, namespace=namespace, content_hashes=[content_hash])
        return found.get(content_hash, "")

    async def gate(self, namespace: str, gate_id: str) -> GateRow:
        """One gate with its votes.

        Raises:
            GateNotFoundError: the namespace has no such gate.
        """
        async with self._engine.reads.connect() as conn:
            return await gates.gate_by_id(conn, namespace=namespace, gate_id=gate_id)

    async def request(self, namespace: str, request_id: str) -> StoredRequest | None:
        """What an earlier call with this request id was answered."""
        async with self._engine.reads.connect() as conn:
            return await requests.stored_request(conn, namespace=namespace, request_id=request_id)

    async def workflow(
        self, namespace: str, name: str, version: int | None
    ) -> tuple[int, PinnedDefinition]:
        """The definition of a stored workflow; version None means the newest.

        Raises:
            WorkflowNotFoundError: there is no such workflow or version.
            DslUnsupportedError: a newer server stored it, with steps that this one does not know.
        """
        if version is None:
            newest = await self._newest.get((namespace, name))
            if newest is None:
                await self._refuse_missing(namespace, name, version)
            version, content_hash = newest
        else:
            content_hash = await self._hash_of(namespace, name, version)
        known = self._definitions.known(content_hash)
        if known is None:
            async with self._engine.reads.connect() as conn:
                stored = await load_definition(conn, namespace, content_hash)
            if stored is None:
                raise WorkflowNotFoundError(f"{name}@{version}")
            known = await self._definitions.load(content_hash, stored)
        return version, known

    async def _hash_of(self, namespace: str, name: str, version: int) -> str:
        async with self._engine.reads.connect() as conn:
            found = await workflows.content_hash(
                conn, namespace=namespace, name=name, version=version
            )
        if found is None:
            await self._refuse_missing(namespace, name, version)
        return found

    async def _refuse_missing(self, namespace: str, name: str, version: int | None) -> NoReturn:
        async with self._engine.reads.connect() as conn:
            await workflows.refuse_missing(conn, namespace=namespace, name=name, version=version)
