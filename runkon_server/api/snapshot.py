"""A run and its steps as of one sequence, in chunks that fit a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon.v1 import runs_pb2
from runkon_server.api.places import find_places
from runkon_server.api.recent import PAGE_BYTES
from runkon_server.api.render.runs import render_run
from runkon_server.api.render.steps import render_step
from runkon_server.api.wire import ELEMENT_BYTES
from runkon_server.core.rows import cut
from runkon_server.store.reads.runs import run_by_id
from runkon_server.store.reads.steps import cursor_of, list_steps

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon.v1 import types_pb2

__all__ = ["read_snapshot"]

_STEPS_PER_READ: Final = 500
_TEXTS: Final = ("result_text", "context", "structured_output", "step_error", "output_file")


async def read_snapshot(
    reads: AsyncEngine, *, namespace: str, run_id: str
) -> list[runs_pb2.StreamSnapshot]:
    """The chunks in order: the run in the first, `last` set on the last, one `seq` in all.

    All of it is read at one moment and held as messages, so that no transaction waits for a slow
    reader.

    Raises:
        RunNotFoundError: the namespace has no such run.
        RunPurgedError: it had one, which was removed.
    """
    async with reads.connect() as shared:
        conn = await shared.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        async with conn.begin():
            run = await run_by_id(conn, namespace=namespace, run_id=run_id)
            place = (await find_places(conn, [run])).get(run_id)
            chunks = _Chunks(run.last_seq, render_run(run, place=place))
            after = None
            while True:
                page = await list_steps(conn, run_id=run_id, limit=_STEPS_PER_READ, after=after)
                for step in page.rows:
                    chunks.add(_cut_texts(render_step(step)))
                if not page.more:
                    return chunks.finish()
                after = cursor_of(page.rows[-1])


class _Chunks:
    """Steps in the making of chunks."""

    def __init__(self, seq: int, run: types_pb2.Run) -> None:
        self._seq = seq
        self._weight = run.ByteSize()
        self._chunks = [runs_pb2.StreamSnapshot(seq=seq, run=run)]

    def add(self, step: types_pb2.Step) -> None:
        weight = step.ByteSize() + ELEMENT_BYTES
        if self._weight + weight > PAGE_BYTES and self._chunks[-1].steps:
            self._chunks.append(runs_pb2.StreamSnapshot(seq=self._seq))
            self._weight = 0
        self._chunks[-1].steps.append(step)
        self._weight += weight

    def finish(self) -> list[runs_pb2.StreamSnapshot]:
        self._chunks[-1].last = True
        return self._chunks


def _cut_texts(step: types_pb2.Step) -> types_pb2.Step:
    for name in _TEXTS:
        setattr(step, name, cut(getattr(step, name)))
    if step.HasField("gate"):
        step.gate.prompt, step.gate.feedback = cut(step.gate.prompt), cut(step.gate.feedback)
    return step
