"""A task: one attempt at one step, as the function that executes it sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from runkon.v1 import workers_pb2
from runkon_client.decode import by_number, decode_instant
from runkon_client.worker.actions import TaskCancelledError
from runkon_client.worker.inputs import read_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_T = TypeVar("_T")


class CancelReason(StrEnum):
    """Why a task is no longer wanted."""

    UNKNOWN = "unknown"
    RUN_CANCELLED = "run_cancelled"
    TIMEOUT = "timeout"
    FAIL_FAST = "fail_fast"
    LEASE_LOST = "lease_lost"
    GATE_CLOSED = "gate_closed"
    """Someone else decided the gate, or its deadline is over."""
    WORKER_STOPPED = "worker_stopped"
    """The worker itself stops and its grace is over; another worker will take the task."""


_REASONS: Final = by_number(workers_pb2.DESCRIPTOR, CancelReason)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of prompt that the definition adds, with placeholders filled in."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """Schema (YAML) that the result must match."""

    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorContext:
    """What an earlier step told those after it; `structured_output` is JSON text."""

    step: str
    iteration: int
    context: str
    markers: tuple[str, ...]
    structured_output: str
    output_file: str


class TaskHost(Protocol):
    """What a task needs of its worker."""

    def send_progress(self, token: str, progress: str) -> None:
        """Send a heartbeat with progress; from any thread."""

    def await_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        """Fetch them, from a thread that may block."""

    async def fetch_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        """Fetch them, on the event loop."""


class Task:
    """One attempt at one step. Attributes are read off the lease; none of them changes.

    An action that changes the world outside hands `idempotency_key` on, since a task may be
    delivered more than once, and heeds `dry_run`.
    """

    __slots__ = ("_cancel_reason", "_contexts", "_host", "_inputs", "_lease")

    def __init__(self, lease: workers_pb2.TaskLease, host: TaskHost) -> None:
        self._lease = lease
        self._host = host
        self._cancel_reason: CancelReason | None = None
        self._inputs: Mapping[str, str] | None = None
        self._contexts: tuple[PriorContext, ...] | None = None

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.action} attempt={self.attempt} delivery={self.delivery}>"

    @property
    def id(self) -> str:
        """The same for every delivery of the attempt."""
        return self._lease.task_id

    @property
    def action(self) -> str:
        """Name of the action, as the definition's `call` says.

        For other kinds of tasks the name of the script, the item provider or the type of the gate.
        """
        return self._lease.action

    @property
    def namespace(self) -> str:
        """The namespace of the run."""
        return self._lease.namespace

    @property
    def run_id(self) -> str:
        """The run."""
        return self._lease.run_id

    @property
    def workflow_name(self) -> str:
        """Name of the run's workflow."""
        return self._lease.workflow_name

    @property
    def step_id(self) -> str:
        """The step's row."""
        return self._lease.step_id

    @property
    def step_name(self) -> str:
        """Readable name of the step."""
        return self._lease.step_name

    @property
    def iteration(self) -> int:
        """Pass of the innermost enclosing loop, from 0."""
        return self._lease.iteration

    @property
    def iterations(self) -> tuple[int, ...]:
        """Passes of all enclosing loops, outermost first, each from 0."""
        return tuple(self._lease.iterations)

    @property
    def attempt(self) -> int:
        """Attempts before this one, from 0; grows when the step is retried after a failure."""
        return self._lease.attempt

    @property
    def delivery(self) -> int:
        """Deliveries of this attempt before this one, from 0; grows when a worker was lost."""
        return self._lease.delivery

    @property
    def retry_error(self) -> str:
        """Error of the attempt before; empty on the first."""
        return self._lease.retry_error

    @property
    def retries_remaining(self) -> int:
        """Attempts left after this one."""
        return self._lease.retries_remaining

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and delivery of this step in this pass."""
        return self._lease.idempotency_key

    @property
    def fence(self) -> int:
        """Grows each time the run changes hands: for callees that can refuse a late writer."""
        return self._lease.fence

    @property
    def dry_run(self) -> bool:
        """True: change nothing outside."""
        return self._lease.dry_run

    @property
    def deadline(self) -> datetime | None:
        """When the step times out, on the server's clock; None without a timeout."""
        if not self._lease.HasField("deadline_time"):
            return None
        return decode_instant(self._lease.deadline_time)

    @property
    def inputs(self) -> Mapping[str, str]:
        """The variables of the step: the run's inputs, engine variables, exported outputs."""
        if self._inputs is None:
            self._inputs = dict(self._lease.inputs)
        return self._inputs

    def inputs_as(self, wanted: type[_T]) -> _T:
        """The inputs as a dataclass or TypedDict, converted by the types of its fields.

        Raises:
            FinalError: values are missing or do not fit, all of which are named.
            TypeError: `wanted` is neither a dataclass nor a TypedDict.
        """
        return read_inputs(self.inputs, wanted)

    @property
    def gate_feedback(self) -> str | None:
        """What the last gate was answered with; None if none was."""
        return self._lease.gate_feedback if self._lease.HasField("gate_feedback") else None

    @property
    def identity(self) -> str:
        """Identity to act as; empty means the worker's own."""
        return self._lease.identity

    @property
    def snippets(self) -> tuple[Snippet, ...]:
        """Prompt snippets in the order in which they apply."""
        return tuple(Snippet(snippet.name, snippet.text) for snippet in self._lease.snippets)

    @property
    def output_schema(self) -> OutputSchema | None:
        """Schema that the result must match; None if there is none."""
        if not self._lease.HasField("output_schema"):
            return None
        return OutputSchema(self._lease.output_schema.name, self._lease.output_schema.source)

    @property
    def max_turns(self) -> int | None:
        """Most turns of an agent; None means the worker's default."""
        return self._lease.max_turns if self._lease.HasField("max_turns") else None

    @property
    def plugin_dirs(self) -> tuple[str, ...]:
        """Plugin directories for an agent."""
        return tuple(self._lease.plugin_dirs)

    @property
    def prior_contexts(self) -> tuple[PriorContext, ...]:
        """What earlier steps told, oldest first.

        Contexts of more than 64 KiB do not come with the task and are fetched from the server:
        here, which blocks, in a plain function; with `await fetch_prior_contexts()` in a coroutine.

        Raises:
            RuntimeError: they have to be fetched, and this is the event loop.
            RunkonClientError: they cannot be fetched.
        """
        if self._contexts is None:
            if self._lease.prior_contexts_omitted:
                self._contexts = self._host.await_prior_contexts(self)
            else:
                self._contexts = parse_prior_contexts(self._lease.prior_contexts)
        return self._contexts

    async def fetch_prior_contexts(self) -> tuple[PriorContext, ...]:
        """`prior_contexts` for coroutines.

        Raises:
            RunkonClientError: they cannot be fetched.
        """
        if self._contexts is None and self._lease.prior_contexts_omitted:
            self._contexts = await self._host.fetch_prior_contexts(self)
        return self.prior_contexts

    def heartbeat(self, progress: str) -> None:
        """Tell how far the work is: text or JSON of the action's own, at most 4 KiB of it.

        Heartbeats without progress are sent by themselves. Does not wait; from any thread.

        Raises:
            TypeError: progress is not a text.
        """
        if not isinstance(progress, str):
            raise TypeError(f"progress is a text, such as JSON, not {progress!r}")
        self._host.send_progress(self._lease.token, progress)

    @property
    def cancelled(self) -> bool:
        """Whether the task is no longer wanted; a coroutine is cancelled as well."""
        return self._cancel_reason is not None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why it is no longer wanted; None while it is."""
        return self._cancel_reason

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelledError` if the task is no longer wanted: for plain functions."""
        if self._cancel_reason is not None:
            raise TaskCancelledError(f"task {self.id}: {self._cancel_reason}")

    def _cancel(self, reason: CancelReason) -> None:
        if self._cancel_reason is None:
            self._cancel_reason = reason


def decode_cancel_reason(number: int) -> CancelReason:
    """Why the server wants a task no longer."""
    return _REASONS.get(number, CancelReason.UNKNOWN)


def parse_prior_contexts(text: str) -> tuple[PriorContext, ...]:
    """Context entries out of the JSON that comes with a task; empty text means none."""
    return tuple(
        PriorContext(
            step=entry.get("step") or "",
            iteration=entry.get("iteration") or 0,
            context=entry.get("context") or "",
            markers=tuple(entry.get("markers") or ()),
            structured_output=entry.get("structured_output") or "",
            output_file=entry.get("output_file") or "",
        )
        for entry in (json.loads(text) if text else ())
    )
