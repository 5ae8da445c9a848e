"""Runs asked for by `runkon.start_run()` in somebody's SQL: created here after the commit.

What such a request says goes the way of a StartRun call, with the same checks and limits. One that
cannot be started is answered for good, under its request id, in SQL and to StartRun alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from runkon.v1 import runs_pb2, types_pb2
from runkon_server import errors
from runkon_server.api.definitions import Definitions
from runkon_server.api.digests import POLICIES
from runkon_server.api.lookups import Lookups, Reader
from runkon_server.api.parsing.runs import check_start_run
from runkon_server.api.starting import RunStarter, StartEngine
from runkon_server.runtime.commands import RunStarted
from runkon_server.store.database import is_passing
from runkon_server.store.start_requests import (
    StartRequest,
    claim_starts,
    forget_starts,
    refuse_start,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.runtime.commands import StartRun

__all__ = ["InboxEngine", "StartInbox"]

log = structlog.get_logger(__name__)

BATCH: Final = 200
CLAIM_S: Final = 10.0
"""How long a request stays with a replica that may have died over it."""
POLL_S: Final = 0.5
"""Longest wait for a request that no hint told of, ±50 %."""
_BY_NAME: Final = {policy.value: value for value, policy in POLICIES.items()}


class InboxEngine(StartEngine, Reader, Protocol):
    """The part of the engine that takes up requests made in SQL."""

    is_draining: bool

    def on_start_requests(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when there may be new ones."""


class StartInbox:
    """Takes up what callers asked for in SQL.

    Args:
        engine: started before `follow`.
    """

    def __init__(self, engine: InboxEngine) -> None:
        definitions = Definitions()
        self._engine = engine
        self._starter = RunStarter(engine, Lookups(engine, definitions), definitions)
        self._wanted = asyncio.Event()

    async def follow(self) -> None:
        """Take up requests for ever, when told and every half second anyway."""
        remove = self._engine.on_start_requests(self._wanted.set)
        try:
            while True:
                if await self._guarded() < BATCH:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S * (0.5 + self._engine.ambient.jitter())):
                            await self._wanted.wait()
                    self._wanted.clear()
        finally:
            remove()

    async def _guarded(self) -> int:
        try:
            return 0 if self._engine.is_draining else await self.take_up()
        except Exception as error:
            # The committer may know of trouble that a connection for reads does not meet.
            if not isinstance(error, errors.UnavailableError) and not is_passing(error):
                raise
            log.warning("start_inbox.failed", error=str(error).strip())
            return 0

    async def take_up(self) -> int:
        """Create the runs of some requests; gives their number."""
        async with self._engine.reads.connect() as conn:
            claimed = await claim_starts(conn, limit=BATCH, ttl_s=CLAIM_S)
        if not claimed:
            return 0
        prepared = await asyncio.gather(*(self._prepare(each) for each in claimed))
        asked = [command for command in prepared if not isinstance(command, errors.RunkonError)]
        started = iter(await self._engine.start_runs(asked) if asked else ())
        answers = [
            command if isinstance(command, errors.RunkonError) else next(started)
            for command in prepared
        ]
        await self._settle(list(zip(claimed, answers, strict=True)))
        return len(claimed)

    async def _prepare(self, request: StartRequest) -> StartRun | errors.RunkonError:
        try:
            asked = _as_request(request)
            check_start_run(asked)
            command = await self._starter.prepare(asked, request.namespace, request.started_by)
        except errors.RunkonError as error:
            return error
        return replace(
            command, digest=request.digest, sql_digest=request.digest, promised_id=request.run_id
        )

    async def _settle(
        self, answers: Sequence[tuple[StartRequest, RunStarted | errors.RunkonError]]
    ) -> None:
        """Forget what is answered; what the database could not take comes again."""
        done = [request for request, answer in answers if isinstance(answer, RunStarted)]
        async with self._engine.reads.connect() as conn:
            if done:
                await forget_starts(conn, done)
            for request, answer in answers:
                if isinstance(answer, RunStarted | errors.UnavailableError):
                    continue
                log.warning(
                    "start_request.refused",
                    namespace=request.namespace,
                    request_id=request.request_id,
                    reason=answer.reason,
                )
                await refuse_start(conn, request, reason=answer.reason, message=answer.message)


def _as_request(request: StartRequest) -> runs_pb2.StartRunRequest:
    """What the function was told, as a caller of StartRun says it.

    Raises:
        InvalidArgumentError: it does not fit the fields of such a request.
    """
    said: dict[str, Any] = request.payload
    try:
        asked = runs_pb2.StartRunRequest(
            namespace=request.namespace,
            request_id=request.request_id,
            workflow=f"{said['workflow'].partition('@')[0]}@{request.version}",
            inputs=said["inputs"],
            key=said["key"],
            conflict_policy=_BY_NAME[said["conflict_policy"]],
            labels=said["labels"],
            priority=said["priority"],
            dry_run=said["dry_run"],
            trigger=said["trigger"],
            parent_run_id=said["parent_run_id"],
            config=types_pb2.RunConfig(fail_fast=said["fail_fast"]),
        )
        if said["start_delay_us"]:
            asked.start_delay.FromMicroseconds(said["start_delay_us"])
    except ValueError as error:
        raise errors.InvalidArgumentError([errors.Violation("start_delay", str(error))]) from error
    return asked
