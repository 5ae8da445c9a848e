"""Every domain error, one class per reason. Imports nothing of ours.

The reason is API (`google.rpc.ErrorInfo.reason`, domain `runkon.dev`); every changing part of a
message is also metadata. `api/status.py` alone chooses gRPC codes; a test asserts that its table
covers every class here and that reasons are unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong place in a request: `field` is a path such as `inputs.ticket` or `source:3:7`.

    It is empty where the request as a whole is wrong.
    """

    field: str
    description: str

    @property
    def told(self) -> str:
        """What is wrong, with the place before it."""
        return f"{self.field}: {self.description}" if self.field else self.description


class RunkonError(Exception):
    """Base of all domain errors. The message is safe to show to any caller."""

    reason: ClassVar[str]

    def __init__(self, message: str, /, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


class InvalidArgumentError(RunkonError):
    """The request is malformed whatever the state of the system; do not retry it."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Iterable[Violation], message: str = "") -> None:
        self.violations = tuple(violations)
        super().__init__(message or "; ".join(each.told for each in self.violations))


class InputsInvalidError(InvalidArgumentError):
    """A required input is missing, or an input is not declared by the workflow."""

    reason = "INPUTS_INVALID"


class DslSyntaxError(InvalidArgumentError):
    """The source does not parse; one violation per diagnostic, `source:LINE:COLUMN`."""

    reason = "DSL_SYNTAX"


class DslLimitError(InvalidArgumentError):
    """The source exceeds a limit (size, depth, count, range)."""

    reason = "DSL_LIMIT"


class DslSemanticError(InvalidArgumentError):
    """The source parses but cannot mean anything safe to run."""

    reason = "DSL_SEMANTIC"


class DslUnsupportedError(InvalidArgumentError):
    """The source uses a construct that this version of the server does not execute."""

    reason = "DSL_UNSUPPORTED"


class PageTokenInvalidError(InvalidArgumentError):
    """The page token is garbage, forged, or belongs to another query."""

    reason = "PAGE_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__(
            [Violation("page_token", "not a token this query returned; start from the first page")]
        )


class FilterInvalidError(InvalidArgumentError):
    """The filter cannot be read; `filter:COLUMN` says where, metadata which field is unknown."""

    reason = "FILTER_INVALID"

    def __init__(self, column: int, problem: str, **metadata: str) -> None:
        super().__init__([Violation(f"filter:{column}", problem)])
        self.metadata = {"column": str(column), **metadata}


class CursorInvalidError(InvalidArgumentError):
    """The cursor is garbage, forged, or belongs to another namespace."""

    reason = "CURSOR_INVALID"

    def __init__(self) -> None:
        super().__init__(
            [Violation("cursor", "not a cursor that a stream of this namespace returned")]
        )


class GateSelectionInvalidError(InvalidArgumentError):
    """A selection is not among the gate's options."""

    reason = "GATE_SELECTION_INVALID"

    def __init__(self, wrong: Iterable[str], options: Iterable[str]) -> None:
        allowed = ", ".join(options)
        remedy = f"choose from: {allowed}" if allowed else "this gate offers no options"
        super().__init__(Violation("selections", f"{item!r}: {remedy}") for item in wrong)


class NotFoundError(RunkonError):
    """No such object in this namespace; another namespace's object looks the same."""

    reason = "NOT_FOUND"
    kind: ClassVar[str] = "object"

    def __init__(self, name: str, message: str = "", **metadata: str) -> None:
        text = message or f"no {self.kind} {name!r} in this namespace"
        super().__init__(text, name=name, type=self.kind, **metadata)
        self.name = name


class WorkflowNotFoundError(NotFoundError):
    """No workflow (or no such version of it) is registered under this name."""

    reason = "WORKFLOW_NOT_FOUND"
    kind = "workflow"


class WorkflowDeletedError(WorkflowNotFoundError):
    """The workflow was deleted; metadata has when and by whom. PutWorkflow brings it back."""

    reason = "WORKFLOW_DELETED"

    def __init__(self, name: str, *, deleted_by: str, deleted_at: str) -> None:
        super().__init__(
            name,
            f"workflow {name!r} was deleted by {deleted_by} at {deleted_at}",
            deleted_by=deleted_by,
            deleted_time=deleted_at,
        )


class RunNotFoundError(NotFoundError):
    """No run has this id or key."""

    reason = "RUN_NOT_FOUND"
    kind = "run"


class RunPurgedError(RunNotFoundError):
    """The run was deleted, or kept no longer; metadata has how it ended, and when it was removed.

    `last_seq` is the sequence of its last event, `purge_time` in RFC 3339.
    """

    reason = "RUN_PURGED"

    def __init__(self, run_id: str, *, status: str, last_seq: int, purged_at: datetime) -> None:
        moment = f"{purged_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        super().__init__(
            run_id,
            f"run {run_id} ({status}) was removed {moment}: deleted, or kept no longer",
            status=status,
            last_seq=str(last_seq),
            purge_time=moment,
        )


class StepNotFoundError(NotFoundError):
    """No step has this id, or it belongs to another run."""

    reason = "STEP_NOT_FOUND"
    kind = "step"


class GateNotFoundError(NotFoundError):
    """No gate has this id, or the run has no gate of this name."""

    reason = "GATE_NOT_FOUND"
    kind = "gate"


class TaskNotFoundError(NotFoundError):
    """No task has this id, or the token was never issued for it."""

    reason = "TASK_NOT_FOUND"
    kind = "task"


class RequestIdReusedError(RunkonError):
    """The request id was used before with another payload."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request id {request_id!r} was used before with another payload; use a fresh id",
            request_id=request_id,
        )


class RunKeyInUseError(RunkonError):
    """A live run already holds this key and the conflict policy is FAIL."""

    reason = "RUN_KEY_IN_USE"

    def __init__(self, key: str, *, run_id: str) -> None:
        super().__init__(f"run {run_id} is live under key {key!r}", key=key, run_id=run_id)


class ReportConflictError(RunkonError):
    """This attempt was already reported with another outcome; the first report stands."""

    reason = "REPORT_CONFLICT"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} was already reported otherwise", task_id=task_id)


class PreconditionError(RunkonError):
    """The object is not in a state that allows this; `subject` and `state` say which and what."""

    reason = "FAILED_PRECONDITION"

    def __init__(self, message: str, *, subject: str, state: str, **metadata: str) -> None:
        super().__init__(message, subject=subject, state=state, **metadata)
        self.subject = subject
        self.state = state


class RunStateError(PreconditionError):
    """The run's status does not allow the change."""

    reason = "RUN_STATE"

    def __init__(self, run_id: str, *, status: str, wish: str) -> None:
        super().__init__(
            f"run {run_id} is {status}; it cannot be {wish}", subject=run_id, state=status
        )


class StartRefusedError(PreconditionError):
    """The request id was used in `runkon.start_run()`, and the run could not be started."""

    reason = "START_REFUSED"

    def __init__(self, request_id: str, *, refusal: str, why: str) -> None:
        super().__init__(
            f"request {request_id!r} came to no run: {why}",
            subject=request_id,
            state="refused",
            refusal=refusal,
            why=why,
        )


class RunIsChildError(PreconditionError):
    """The run belongs to the run above it, and goes with it."""

    reason = "RUN_IS_CHILD"

    def __init__(self, run_id: str, *, parent: str) -> None:
        super().__init__(
            f"run {run_id} belongs to run {parent}; delete that one",
            subject=run_id,
            state="child",
            parent=parent,
        )


class ResumeRefusedError(PreconditionError):
    """The run's status would allow a resume, but not this one; the message says which would do."""

    reason = "RESUME_REFUSED"

    def __init__(self, run_id: str, *, status: str, mode: str, why: str) -> None:
        super().__init__(
            f"run {run_id} cannot be resumed in this way: {why}",
            subject=run_id,
            state=status,
            mode=mode,
        )


class GateTypeMismatchError(PreconditionError):
    """The gate waits for something else than what was reported."""

    reason = "GATE_TYPE_MISMATCH"

    def __init__(self, gate_id: str, *, gate_type: str) -> None:
        super().__init__(
            f"gate {gate_id} is of type {gate_type}, which takes no reports of pull requests",
            subject=gate_id,
            state="pending",
            gate_type=gate_type,
        )


class GateAlreadyResolvedError(PreconditionError):
    """Another decision won this gate; metadata names the winner."""

    reason = "GATE_ALREADY_RESOLVED"

    def __init__(self, gate_id: str, *, decision: str, resolved_by: str) -> None:
        super().__init__(
            f"gate {gate_id} was already {decision} by {resolved_by}",
            subject=gate_id,
            state=decision,
            resolved_by=resolved_by,
        )


class GateTimedOutError(PreconditionError):
    """The gate's deadline passed before this decision."""

    reason = "GATE_TIMED_OUT"

    def __init__(self, gate_id: str) -> None:
        super().__init__(
            f"the deadline of gate {gate_id} has passed", subject=gate_id, state="timed_out"
        )


class GateClosedError(PreconditionError):
    """The gate was closed without a decision because its run was cancelled or ended."""

    reason = "GATE_CLOSED"

    def __init__(self, gate_id: str) -> None:
        super().__init__(f"gate {gate_id} was closed with its run", subject=gate_id, state="closed")


class TaskAttemptStaleError(PreconditionError):
    """The attempt was superseded or its run is over: drop the work."""

    reason = "TASK_ATTEMPT_STALE"

    def __init__(self, task_id: str, *, state: str) -> None:
        super().__init__(
            f"this attempt of task {task_id} no longer counts; drop the work",
            subject=task_id,
            state=state,
        )


class GateStarterExcludedError(RunkonError):
    """The gate excludes the principal who started the run."""

    reason = "GATE_STARTER_EXCLUDED"

    def __init__(self, gate_id: str, *, principal: str) -> None:
        super().__init__(
            f"{principal} started the run and may not resolve gate {gate_id}",
            gate_id=gate_id,
            principal=principal,
        )


class AdminRequiredError(RunkonError):
    """Only administrators may do this, and the caller is none."""

    reason = "ADMIN_REQUIRED"

    def __init__(self, principal: str) -> None:
        super().__init__(
            f"{principal} is no administrator; call from the machine of a replica",
            principal=principal,
        )


class CursorAheadError(RunkonError):
    """The cursor is beyond the last event of the run."""

    reason = "CURSOR_AHEAD"

    def __init__(self, run_id: str, *, after_seq: int, head_seq: int) -> None:
        super().__init__(
            f"run {run_id} has {head_seq} events, the cursor says {after_seq}",
            run_id=run_id,
            after_seq=str(after_seq),
            head_seq=str(head_seq),
        )


class CursorExpiredError(RunkonError):
    """Events above the cursor have been purged; start again from `oldest_seq`."""

    reason = "CURSOR_EXPIRED"

    def __init__(self, run_id: str, *, oldest_seq: int) -> None:
        super().__init__(
            f"events of run {run_id} before {oldest_seq} are gone",
            run_id=run_id,
            oldest_seq=str(oldest_seq),
        )


class FeedExpiredError(RunkonError):
    """Retention has removed events above the cursor; begin again without one."""

    reason = "FEED_EXPIRED"

    def __init__(self, namespace: str) -> None:
        super().__init__(
            f"retention has removed events of namespace {namespace} above the cursor",
            namespace=namespace,
        )


class CursorForeignError(RunkonError):
    """The cursor is of another database cluster, or of a state that this one has lost."""

    reason = "CURSOR_FOREIGN"

    def __init__(self, namespace: str) -> None:
        super().__init__(
            "the cursor is of another database cluster, or of a state that this one has lost;"
            " begin again without one",
            namespace=namespace,
        )


class ResourceExhaustedError(RunkonError):
    """A limit on rate, concurrency or size is reached; try again later."""

    reason = "RESOURCE_EXHAUSTED"

    def __init__(self, subject: str, *, limit: str) -> None:
        super().__init__(f"{subject}: limit of {limit} reached", subject=subject, limit=limit)


class StreamLimitError(RunkonError):
    """The connection, or the principal, has too many streams open; close some of them."""

    reason = "STREAM_LIMIT"

    def __init__(self, subject: str, *, limit: int) -> None:
        super().__init__(
            f"{subject} has {limit} streams open, which is the limit",
            subject=subject,
            limit=str(limit),
        )


class SlowConsumerError(RunkonError):
    """The reader of a stream did not take a frame in time; reconnect with the cursor."""

    reason = "SLOW_CONSUMER"

    def __init__(self, **place: str) -> None:
        super().__init__("the reader is too slow; reconnect with the cursor", **place)


class CredentialsRevokedError(RunkonError):
    """What the caller proved itself with does not hold any more; get new credentials."""

    reason = "CREDENTIALS_REVOKED"

    def __init__(self, principal: str) -> None:
        super().__init__(f"{principal} may not listen any more", principal=principal)


class UnavailableError(RunkonError):
    """The server cannot answer now; repeat the same call (same request id)."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str = "the server cannot answer now") -> None:
        super().__init__(message)


class DatabaseUnavailableError(UnavailableError):
    """PostgreSQL cannot be reached."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the database cannot be reached")


class DatabaseReadOnlyError(UnavailableError):
    """PostgreSQL takes no writes: it is a standby, or was set to read only. Reads are answered."""

    reason = "DATABASE_READ_ONLY"

    def __init__(self) -> None:
        super().__init__("the database is read-only for now; nothing was changed")


class DatabaseFullError(UnavailableError):
    """PostgreSQL has no room to write: its disk is full. Reads are answered."""

    reason = "DATABASE_FULL"

    def __init__(self) -> None:
        super().__init__("the database has no room left; nothing was changed")


class DrainingError(UnavailableError):
    """This replica is shutting down; another one will answer."""

    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("this replica is shutting down")


class OutcomeUnknownError(UnavailableError):
    """The commit's outcome is unknown; repeat with the same request id to learn it."""

    reason = "OUTCOME_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("the outcome is unknown; repeat with the same request id")


class ConflictError(RunkonError):
    """The database kept refusing a concurrent change; read again and retry."""

    reason = "CONFLICT"

    def __init__(self) -> None:
        super().__init__("a concurrent change won; read again and retry")


class LeaseLostError(RunkonError):
    """Another replica owns the run now; its results are fenced off. Never reaches a caller."""

    reason = "LEASE_LOST"

    def __init__(self, run_id: str, *, generation: int) -> None:
        super().__init__(
            f"lease on run {run_id} is past generation {generation}",
            run_id=run_id,
            generation=str(generation),
        )
