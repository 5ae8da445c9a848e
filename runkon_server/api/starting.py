"""StartRun and BatchStartRuns: from what a caller says to what the engine is told, and back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from runkon.v1 import runs_pb2
from runkon_server import errors
from runkon_server.api.digests import POLICIES, digest_of, sql_digest_of
from runkon_server.api.identity import current_principal
from runkon_server.api.parsing.checks import namespace_of, span_of
from runkon_server.api.parsing.runs import check_start_run, parse_workflow_name
from runkon_server.api.render import render_run
from runkon_server.api.status import error_status
from runkon_server.runtime.commands import ConflictPolicy, RunStarted, StartRun
from runkon_server.runtime.inputs import complete_inputs
from runkon_server.store.rows import RunRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon.v1 import types_pb2
    from runkon_server.api.definitions import Definitions
    from runkon_server.api.lookups import Lookups
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import PinnedDefinition

__all__ = ["RunStarter", "StartEngine"]

_ANSWER_BYTES: Final = 3 * 1024 * 1024
"""Of the outcomes of a batch; the runs behind it are shown without their inputs."""
_LOOKS: Final = 50
_LOOK_S: Final = 0.1
"""How often and how long apart: for the run that was asked for in SQL a moment ago."""


class StartEngine(Protocol):
    """The part of the engine that starts runs."""

    @property
    def ambient(self) -> Ambient:
        """Its clock."""

    async def start_run(self, command: StartRun) -> RunStarted:
        """Create a run and begin it."""

    async def start_runs(
        self, commands: Sequence[StartRun]
    ) -> list[RunStarted | errors.RunkonError]:
        """Create many runs; each has its own outcome."""


class RunStarter:
    """Starts runs for RunService.

    Args:
        engine: creates the runs.
        lookups: finds workflows, runs and earlier requests.
        definitions: reads and checks inline sources.
    """

    def __init__(self, engine: StartEngine, lookups: Lookups, definitions: Definitions) -> None:
        self._engine = engine
        self._lookups = lookups
        self._definitions = definitions

    async def start(self, request: runs_pb2.StartRunRequest) -> runs_pb2.StartRunResponse:
        """Start one run, or only check it."""
        namespace = namespace_of(request.namespace)
        try:
            command = await self.prepare(request, namespace, current_principal())
        except (errors.InvalidArgumentError, errors.NotFoundError):
            answered = await self._without_a_look(request, namespace)
            if answered is None:
                raise
        else:
            if request.validate_only:
                return await self._validated(command)
            answered = await self._engine.start_run(command)
        return await self._answer(namespace, answered)

    async def start_batch(
        self, request: runs_pb2.BatchStartRunsRequest
    ) -> runs_pb2.BatchStartRunsResponse:
        """Start many runs; what is wrong with one is its own outcome."""
        namespace = namespace_of(request.namespace)
        items = [_item_of(request, number) for number in range(len(request.requests))]
        prepared = await asyncio.gather(*(self._prepare_item(each, namespace) for each in items))
        commands = [each for each in prepared if isinstance(each, StartRun)]
        started = iter(await self._engine.start_runs(commands) if commands else ())
        answers = [next(started) if isinstance(each, StartRun) else each for each in prepared]
        outcomes = await asyncio.gather(*(self._outcome(namespace, each) for each in answers))
        _leave_out_inputs(outcomes)
        return runs_pb2.BatchStartRunsResponse(
            outcomes=outcomes, replayed=all(each.response.replayed for each in outcomes)
        )

    async def _prepare_item(
        self, item: runs_pb2.StartRunRequest, namespace: str
    ) -> StartRun | RunStarted | runs_pb2.StartRunResponse | errors.RunkonError:
        """What the engine is told of an item, or what comes of it without the engine."""
        try:
            check_start_run(item)
            try:
                command = await self.prepare(item, namespace, current_principal())
            except (errors.InvalidArgumentError, errors.NotFoundError):
                answered = await self._without_a_look(item, namespace)
                if answered is None:
                    raise
                return answered
            return await self._validated(command) if item.validate_only else command
        except errors.RunkonError as error:
            return error

    async def _outcome(
        self,
        namespace: str,
        answer: StartRun | RunStarted | runs_pb2.StartRunResponse | errors.RunkonError,
    ) -> runs_pb2.StartRunOutcome:
        if isinstance(answer, errors.RunkonError):
            return runs_pb2.StartRunOutcome(error=error_status(answer))
        if isinstance(answer, RunStarted):
            try:
                answer = await self._answer(namespace, answer)
            except (errors.StartRefusedError, errors.UnavailableError) as error:
                return runs_pb2.StartRunOutcome(error=error_status(error))
        assert isinstance(answer, runs_pb2.StartRunResponse)
        return runs_pb2.StartRunOutcome(response=answer)

    async def prepare(
        self, request: runs_pb2.StartRunRequest, namespace: str, principal: str
    ) -> StartRun:
        """The command for the engine, with the definition found and the inputs complete.

        Raises:
            WorkflowNotFoundError, InputsInvalidError
        """
        pinned = await self._pinned(request, namespace)
        digest = sql_digest = ""
        if request.request_id:
            digest = digest_of(request, namespace=namespace, principal=principal)
            sql_digest = sql_digest_of(request)
        return StartRun(
            namespace=namespace,
            pinned=pinned,
            inputs=complete_inputs(pinned.definition, request.inputs),
            principal=principal,
            request_id=request.request_id or None,
            digest=digest,
            sql_digest=sql_digest,
            key=request.key or None,
            conflict_policy=POLICIES[request.conflict_policy],
            labels=dict(request.labels),
            priority=request.priority,
            dry_run=request.dry_run,
            fail_fast=request.config.fail_fast if request.config.HasField("fail_fast") else True,
            trigger=request.trigger,
            parent_run_id=request.parent_run_id or None,
            start_delay=span_of(request.start_delay) if request.HasField("start_delay") else None,
        )

    async def _pinned(self, request: runs_pb2.StartRunRequest, namespace: str) -> PinnedDefinition:
        if request.WhichOneof("definition") == "source":
            checked = await self._definitions.check(
                request.source, request.output_schemas, request.snippets
            )
            return checked.accept()
        parsed = parse_workflow_name(request.workflow)
        assert parsed is not None
        version, pinned = await self._lookups.workflow(namespace, *parsed)
        return replace(pinned, version=version)

    async def _without_a_look(
        self, request: runs_pb2.StartRunRequest, namespace: str
    ) -> RunStarted | None:
        """The answer to a request whose rest does not matter, however wrong it may be by now.

        A repeat gets the first answer, although the workflow may have changed since; and a live
        run under the key is used without looking at the rest, if the policy says so.
        """
        if request.validate_only:
            return None
        if request.request_id:
            stored = await self._lookups.request(namespace, request.request_id)
            if stored is not None:
                principal = current_principal()
                digest = digest_of(request, namespace=namespace, principal=principal)
                if stored.digest not in {digest, sql_digest_of(request) or digest}:
                    raise errors.RequestIdReusedError(request.request_id)
                return RunStarted.replay(request.request_id, stored.response)
        if request.key and request.conflict_policy == runs_pb2.CONFLICT_POLICY_USE_EXISTING:
            holder = await self._holder(namespace, request.key)
            if holder is not None:
                return RunStarted(run_id=holder.id, started=False)
        return None

    async def _holder(self, namespace: str, key: str) -> RunRow | None:
        """The live run that holds a key."""
        try:
            run = await self._lookups.run(
                namespace, await self._lookups.run_id_of_key(namespace, key)
            )
        except errors.RunNotFoundError:
            return None
        return run if run.ended_at is None else None

    async def _validated(self, command: StartRun) -> runs_pb2.StartRunResponse:
        """The run as it would be."""
        if (
            command.key is not None
            and command.conflict_policy is not ConflictPolicy.CANCEL_EXISTING
        ):
            holder = await self._holder(command.namespace, command.key)
            if holder is not None and command.conflict_policy is ConflictPolicy.FAIL:
                raise errors.RunKeyInUseError(command.key, run_id=holder.id)
            if holder is not None:
                return runs_pb2.StartRunResponse(run=render_run(holder))
        return runs_pb2.StartRunResponse(run=_as_it_would_be(command))

    async def _answer(self, namespace: str, started: RunStarted) -> runs_pb2.StartRunResponse:
        if started.pending is not None:
            started = await self._created(namespace, started.pending)
        if (refusal := started.refusal) is not None:
            raise errors.StartRefusedError(
                refusal.request_id, refusal=refusal.reason, why=refusal.message
            )
        run = await self._lookups.run(namespace, started.run_id)
        return runs_pb2.StartRunResponse(
            run=render_run(
                run,
                summary=await self._lookups.summary(run),
                place=await self._lookups.place(run),
            ),
            started=started.started,
            replayed=started.replayed,
        )

    async def _created(self, namespace: str, request_id: str) -> RunStarted:
        """The answer to a request in SQL once some replica has created the run.

        Raises:
            UnavailableError: nobody has, for some seconds.
        """
        for _ in range(_LOOKS):
            stored = await self._lookups.request(namespace, request_id)
            if stored is not None:
                started = RunStarted.replay(request_id, stored.response)
                if started.pending is None:
                    return started
            await self._engine.ambient.sleep(_LOOK_S)
        raise errors.UnavailableError("the run of this request is still to be created")


def _item_of(request: runs_pb2.BatchStartRunsRequest, number: int) -> runs_pb2.StartRunRequest:
    """One item with what it leaves to the batch filled in."""
    item = request.requests[number]
    item.namespace = request.namespace
    if request.request_id and not item.request_id:
        item.request_id = f"{request.request_id}#{number}"
    return item


def _leave_out_inputs(outcomes: Sequence[runs_pb2.StartRunOutcome]) -> None:
    """Keep a batch's answer within one message: its caller knows the inputs."""
    size = 0
    for outcome in outcomes:
        size += outcome.ByteSize()
        if size > _ANSWER_BYTES and outcome.WhichOneof("outcome") == "response":
            size -= outcome.ByteSize()
            outcome.response.run.ClearField("inputs")
            outcome.response.run.ClearField("result_summary")
            size += outcome.ByteSize()


def _as_it_would_be(command: StartRun) -> types_pb2.Run:
    definition = command.pinned.definition
    row = RunRow(
        id="",
        namespace=command.namespace,
        workflow_name=definition.name,
        status="pending",
        content_hash=command.pinned.content_hash,
        created_at=None,
        key=command.key,
        workflow_version=command.pinned.version,
        workflow_title=definition.title,
        dry_run=command.dry_run,
        fail_fast=command.fail_fast,
        trigger=command.trigger,
        started_by=command.principal,
        parent_run_id=command.parent_run_id,
        priority=command.priority,
        inputs=command.inputs,
        labels=command.labels,
    )
    return render_run(row)
