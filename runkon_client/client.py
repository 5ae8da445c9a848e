"""The asynchronous client: runs, gates and workflows as handles and plain values."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Self, Unpack

from runkon_client.admin import Admin
from runkon_client.calls import runs as run_calls
from runkon_client.calls import workers as worker_calls
from runkon_client.calls import workflows as workflow_calls
from runkon_client.calls.gates import GateTarget
from runkon_client.calls.runs import RunSpec
from runkon_client.channel import CHANNEL_OPTIONS, resolve_endpoint
from runkon_client.errors import RunkonClientError
from runkon_client.feeds import FeedFilter, FeedFollower
from runkon_client.following import DEFAULT_HEARTBEAT
from runkon_client.handles import GateHandle, Gates, RunHandle, StartedRun
from runkon_client.retry import RetryPolicy
from runkon_client.streams import NamespaceStream
from runkon_client.transport import AsyncTransport
from runkon_client.values import GraphFormat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from runkon_client.calls.runs import RunCount, RunOptions, Started
    from runkon_client.values import (
        ConnectedWorker,
        EventKind,
        FormattedWorkflow,
        Run,
        StoredWorkflow,
        Validation,
        Workflow,
    )


class Client:
    """A connection to a server, for one namespace and one principal.

    What is not given comes from RUNKON_ADDRESS, RUNKON_NAMESPACE and RUNKON_PRINCIPAL, else it is
    127.0.0.1:7411, the server's `default` and the name of the operating system's user. Every call
    is repeated with growing delays while the server is away, at most for the window of `retry`,
    and raises a `RunkonClientError` when it fails. It works in one event loop, that of its first
    call.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        namespace: str | None = None,
        principal: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._endpoint = resolve_endpoint(address, namespace, principal)
        self._namespace = self._endpoint.namespace
        self._transport = AsyncTransport(self._endpoint, retry or RetryPolicy(), CHANNEL_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; open streams and calls fail."""
        await self._transport.close()

    async def start_run(self, workflow: str = "", **options: Unpack[RunOptions]) -> StartedRun:
        """Start a run of a stored workflow (`NAME` or `NAME@VERSION`), or of `source`.

        Raises:
            NotFoundError: no such workflow or version.
            InvalidArgumentError: inputs or source are refused; `violations` say where.
            AlreadyExistsError: a live run holds the key, under the policy FAIL.
        """
        spec = RunSpec(workflow, **options)
        return self._started(
            await self._transport.perform(run_calls.start_run(self._namespace, spec))
        )

    async def validate_run(self, workflow: str = "", **options: Unpack[RunOptions]) -> Run:
        """Check a start without making it; gives the run as it would be, without an id."""
        call = run_calls.start_run(
            self._namespace, RunSpec(workflow, **options), validate_only=True
        )
        return (await self._transport.perform(call)).run

    async def start_runs(
        self, specs: Sequence[RunSpec], *, request_id: str = ""
    ) -> list[StartedRun | RunkonClientError]:
        """Start up to 500 runs with one call; one outcome per spec, in the same order."""
        call = run_calls.start_runs(self._namespace, specs, request_id)
        outcomes = await self._transport.perform(call)
        return [
            outcome if isinstance(outcome, RunkonClientError) else self._started(outcome)
            for outcome in outcomes
        ]

    def run(self, run_id: str) -> RunHandle:
        """The handle of a run that exists; asks the server nothing."""
        return RunHandle(self._transport, run_id)

    async def get_run(self, run_id: str = "", *, key: str = "", full: bool = False) -> Run:
        """A run by its id, or by the key it was started with; `full` adds its definition.

        Raises:
            NotFoundError: no such run.
        """
        return await self._transport.perform(
            run_calls.get_run(self._namespace, run_id, key, full=full)
        )

    def list_runs(
        self, filter_text: str = "", *, oldest_first: bool = False, page_size: int = 0
    ) -> AsyncIterator[Run]:
        """Runs, newest first, fetched page by page as they are taken."""
        return self._transport.pages(
            lambda token: run_calls.list_runs(
                self._namespace,
                filter_text,
                oldest_first=oldest_first,
                page_size=page_size,
                token=token,
            )
        )

    async def count_runs(self, filter_text: str = "") -> RunCount:
        """How many runs meet the filter; exact up to 100,000.

        Raises:
            InvalidArgumentError: the filter cannot be read; `violations` say where.
        """
        return await self._transport.perform(run_calls.count_runs(self._namespace, filter_text))

    def events(
        self,
        cursor: str = "",
        *,
        workflow_name: str = "",
        kinds: Sequence[EventKind] = (),
        labels: Mapping[str, str] | None = None,
        from_now: bool = False,
        follow: bool = True,
        heartbeat: timedelta = DEFAULT_HEARTBEAT,
    ) -> NamespaceStream:
        """The events of all runs of the namespace, in the order of their commits.

        Args:
            cursor: a stored one goes on where it left off, on any replica; by default from the
                oldest event that is kept.
            workflow_name, kinds, labels: only events that all of these hold for.
            from_now: without a cursor, only events that come later.
            follow: go on for ever; else end once everything that is there has come.
            heartbeat: 1 s to 60 s; three of them without a frame mean: open another stream.
        """
        wanted = FeedFilter(
            namespace=self._namespace,
            cursor=cursor,
            from_now=from_now,
            follow=follow,
            workflow_name=workflow_name,
            kinds=tuple(kinds),
            labels=labels or {},
            heartbeat=heartbeat if follow else timedelta(seconds=1),
        )
        return NamespaceStream(self._transport, FeedFollower(wanted), lambda event: event)

    @property
    def gates(self) -> Gates:
        """The gates of the namespace: `gates(…)` lists them, `gates.watch(…)` follows them."""
        return Gates(self._transport)

    def gate(self, gate_id: str) -> GateHandle:
        """The handle of a gate; asks the server nothing."""
        return GateHandle(self._transport, GateTarget(gate_id=gate_id))

    async def put_workflow(
        self,
        source: str,
        *,
        output_schemas: Mapping[str, str] | None = None,
        snippets: Mapping[str, str] | None = None,
        strict: bool = False,
        request_id: str = "",
    ) -> StoredWorkflow:
        """Store a definition under the name in its source; the same content changes nothing.

        Raises:
            InvalidArgumentError: refused; one violation per diagnostic.
        """
        return await self._transport.perform(
            workflow_calls.put_workflow(
                self._namespace,
                source,
                output_schemas=output_schemas or {},
                snippets=snippets or {},
                strict=strict,
                request_id=request_id,
            )
        )

    async def get_workflow(self, name: str, *, version: int = 0, full: bool = True) -> Workflow:
        """One version of a workflow; 0 means the newest.

        Raises:
            NotFoundError: no such workflow or version.
        """
        return await self._transport.perform(
            workflow_calls.get_workflow(self._namespace, name, version, full=full)
        )

    def list_workflows(self, name: str = "", *, page_size: int = 0) -> AsyncIterator[Workflow]:
        """The newest version of every workflow by name, or every version of one, newest first."""
        return self._transport.pages(
            lambda token: workflow_calls.list_workflows(
                self._namespace, name, page_size=page_size, token=token
            )
        )

    def workers(self, *, page_size: int = 0) -> AsyncIterator[ConnectedWorker]:
        """The workers that are connected now, to whichever replica, by id."""
        return self._transport.pages(
            lambda token: worker_calls.list_workers(
                self._namespace, page_size=page_size, token=token
            )
        )

    async def delete_workflow(self, name: str, *, request_id: str = "") -> int:
        """Take a name with all its versions away; runs that began before go on.

        Gives the number of versions, 0 if it was deleted before.

        Raises:
            NotFoundError: no workflow of this name was ever stored.
        """
        return await self._transport.perform(
            workflow_calls.delete_workflow(self._namespace, name, request_id=request_id)
        )

    @property
    def admin(self) -> Admin:
        """What operators do: limits of actions, replicas, retention."""
        return Admin(self._transport)

    async def validate_workflow(
        self,
        source: str,
        *,
        output_schemas: Mapping[str, str] | None = None,
        snippets: Mapping[str, str] | None = None,
        strict: bool = False,
        check_served: bool = False,
    ) -> Validation:
        """Check a definition with the stored workflows that it calls, and store nothing.

        Args:
            check_served: also look for what no worker serves that is connected now.
        """
        return await self._transport.perform(
            workflow_calls.validate_workflow(
                self._namespace,
                source,
                output_schemas=output_schemas or {},
                snippets=snippets or {},
                strict=strict,
                check_served=check_served,
            )
        )

    async def format_workflow(self, source: str) -> FormattedWorkflow:
        """Bring a definition into the canonical layout; the answer says what is wrong with it."""
        return await self._transport.perform(
            workflow_calls.format_workflow(self._namespace, source)
        )

    async def graph_workflow(
        self,
        workflow: str = "",
        *,
        source: str = "",
        run_id: str = "",
        graph_format: GraphFormat = GraphFormat.MERMAID,
    ) -> str:
        """Draw a stored workflow (`NAME` or `NAME@VERSION`), a source, or a run with statuses.

        Raises:
            NotFoundError: no such workflow, version or run.
            InvalidArgumentError: the source cannot be read; `violations` say where.
        """
        return await self._transport.perform(
            workflow_calls.graph_workflow(
                self._namespace,
                workflow,
                source=source,
                run_id=run_id,
                graph_format=graph_format,
            )
        )

    def _started(self, answer: Started) -> StartedRun:
        return StartedRun(self._transport, answer)
