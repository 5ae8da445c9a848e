"""What callers ask of the engine and what it answers: plain values, checked by `api` before.

Every mutation carries `request_id` (None: not idempotent) and `digest`, a hash of the whole
payload; the engine answers a repeat from the stored response, with `replayed` set, and refuses the
same id with another digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runkon_server.store.queues import DEFAULT_QUEUE

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from runkon_server import errors
    from runkon_server.core.decision import GateWork, ItemsWork, ScriptWork, TaskKind
    from runkon_server.core.facts import GateDecided, GatePolled, ItemsCollected, Reported
    from runkon_server.core.resuming import ResumeMode
    from runkon_server.dsl.ast import Definition


class ConflictPolicy(StrEnum):
    """What StartRun does when a live run holds the key."""

    FAIL = "fail"
    USE_EXISTING = "use_existing"
    CANCEL_EXISTING = "cancel_existing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedDefinition:
    """A checked definition with the hash that names it for the life of its runs."""

    content_hash: str
    """SHA-256 hex over source, output schemas and snippets."""
    snapshot: str
    definition: Definition
    version: int | None = None
    """None: started from an inline source."""
    output_schemas: Mapping[str, str] = field(default_factory=dict)
    """Texts by name, as are the snippets; both as they were given with the source."""
    snippets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """Create a run. Inputs are already checked and defaults filled in."""

    namespace: str
    pinned: PinnedDefinition
    inputs: dict[str, str]
    principal: str
    request_id: str | None = None
    digest: str = ""
    key: str | None = None
    conflict_policy: ConflictPolicy = ConflictPolicy.FAIL
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    dry_run: bool = False
    fail_fast: bool = True
    trigger: str = ""
    parent_run_id: str | None = None
    start_delay: timedelta | None = None
    sql_digest: str = ""
    """The digest of the same request to `runkon.start_run()`; empty if it could not be made."""
    promised_id: str | None = None
    """The run's id, if the request was made by that function, which has answered with it."""


@dataclass(frozen=True, slots=True)
class StartRefusal:
    """Why a request that was made in SQL came to no run."""

    request_id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Answer to StartRun; `started` is False when an existing run was returned."""

    run_id: str
    started: bool
    replayed: bool = False
    pending: str | None = None
    """The request id, if it was used in SQL and nobody has created the run yet."""
    refusal: StartRefusal | None = None

    @classmethod
    def replay(cls, request_id: str, response: Mapping[str, Any]) -> RunStarted:
        """What an earlier request was answered, from its stored form."""
        error = response.get("error")
        return cls(
            run_id=response["run_id"],
            started=response["started"],
            replayed=True,
            pending=request_id if response.get("pending") else None,
            refusal=error and StartRefusal(request_id, error["reason"], error["message"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRun:
    """Ask a run to stop. Refused for completed and failed runs; a repeat is fine."""

    namespace: str
    run_id: str
    principal: str
    reason: str = ""
    force: bool = False
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveGate:
    """Vote on a gate: by its id, or by name among the run's (the pending one, else the newest)."""

    namespace: str
    principal: str
    approve: bool
    gate_id: str | None = None
    run_id: str | None = None
    key: str | None = None
    gate_name: str | None = None
    feedback: str | None = None
    selections: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResolved:
    """Answer to ResolveGate; the gate may still be pending when the quorum is larger."""

    run_id: str
    gate_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCancelled:
    """Answer to CancelRun."""

    run_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRun:
    """Take a finished run up again, in a new epoch."""

    namespace: str
    run_id: str
    principal: str
    mode: ResumeMode
    from_step_id: str | None = None
    """Set exactly for `from_step`: any row of the step to repeat from."""
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """Answer to ResumeRun."""

    run_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """How a pull request stands, as somebody outside saw it."""

    head_commit: str
    author: str = ""
    """Empty: not known."""
    approvals: tuple[tuple[str, str], ...] = ()
    """Pairs of reviewer and approved commit, of those whose last word was to approve."""
    review_decision: str | None = None
    """`approved`, `changes_requested` or `review_required`; None: the forge does not say."""
    checks: tuple[tuple[str, str], ...] = ()
    """Pairs of name and state: `pending`, `succeeded`, `skipped` or `failed`."""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPullRequest:
    """Tell a `pr_approval` or `pr_checks` gate how its pull request stands; named as a vote is."""

    namespace: str
    principal: str
    pull_request: PullRequest
    gate_id: str | None = None
    run_id: str | None = None
    key: str | None = None
    gate_name: str | None = None
    request_id: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestReported:
    """Answer to ReportPullRequest."""

    run_id: str
    gate_id: str
    pending_reason: str = ""
    """What is missing, one sentence; empty once the gate is approved."""
    replayed: bool = False
    """The request was made before, or the gate was approved before."""


# Not frozen, though nobody changes it: see `core.decision.Dispatch`.
@dataclass(slots=True, kw_only=True)
class TaskLease:
    """One task as it goes to a worker."""

    task_id: str
    token: str
    namespace: str
    run_id: str
    workflow_name: str
    step_id: str
    step_name: str
    action: str
    iteration: int
    iterations: tuple[int, ...]
    attempt: int
    delivery: int
    """0 for the first hand-out; counts redeliveries of the same attempt."""
    retries_remaining: int
    idempotency_key: str
    fence: str
    """`GENERATION.DELIVERY`; a callee may refuse an older one."""
    inputs: dict[str, str]
    prior_contexts: str | None
    retry_error: str | None
    gate_feedback: str | None
    identity: str | None
    max_turns: int | None
    plugin_dirs: tuple[str, ...]
    lease: timedelta
    """Heartbeat within this, or the task is handed out again."""
    deadline_at: datetime | None
    """End of the attempt by the database's clock; None: the step has no timeout."""
    dry_run: bool
    kind: TaskKind = "action"
    work: ScriptWork | ItemsWork | GateWork | None = None
    """What the kind needs beyond the above; None for an action."""
    snippets: tuple[tuple[str, str], ...] = ()
    """Pairs of name and text, placeholders filled in; empty text: it was not stored."""
    output_schema: tuple[str, str] | None = None
    """Name and text, which is empty if it was not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCancel:
    """Tell a worker to stop a task; it reports `cancelled` (or whatever was too late to stop)."""

    task_id: str
    token: str
    reason: str


@dataclass(slots=True, kw_only=True)  # as `TaskLease`
class TaskReport:
    """A worker's word on one task. `fact.task_id` names it."""

    token: str
    fact: Reported | ItemsCollected | GatePolled
    """Not always of the kind that the task asks for: that is for the engine to find out."""
    digest: str = ""
    """Hash of the outcome: tells a repeat from a contradiction."""
    gate_decision: GateDecided | None = None
    """What a look at a gate has decided, in the name of the worker's principal; the fact is then a
    `GatePolled`, and this is recorded instead of it, if the gate allows."""
    by_server: bool = False
    """The server settles a task that was cancelled before any worker had it."""


class AckStatus(StrEnum):
    """What became of a report."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report is worth. `error` is what it would fail with as a call of its own."""

    status: AckStatus
    error: errors.RunkonError | None = None


ACCEPTED: Final = Verdict(AckStatus.ACCEPTED)
Acknowledge: TypeAlias = Callable[[Verdict], None]
"""Called once for a report, after its commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAck:
    """Answer to one report, after its commit."""

    task_id: str
    token: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHeartbeat:
    """A sign of life for one task, with optional progress (JSON text or plain text)."""

    task_id: str
    token: str
    progress: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatAnswer:
    """Whether the task still counts and whether it should stop."""

    task_id: str
    token: str
    known: bool
    cancel_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHello:
    """Who a worker is and what it serves; `*` in `actions` makes it a fallback."""

    namespace: str
    worker_id: str
    actions: frozenset[str]
    queues: frozenset[str] = frozenset({DEFAULT_QUEUE})
    """As `store.queues.served_queues` gives them."""
    principal: str = ""
    item_providers: frozenset[str] = frozenset()
    gate_types: frozenset[str] = frozenset()
    scripts: bool = False
    concurrency: int = 0
    """0: not told, as by one that polls."""
    client: str = ""
    in_hand: frozenset[str] | None = None
    """Tokens of the tasks that it has; None: it does not tell."""


@dataclass(slots=True)  # as `TaskLease`
class EventRecord:
    """One row of `run_events`; `payload` is JSON text."""

    run_id: str
    seq: int
    epoch: int
    kind: str
    at: datetime
    generation: int
    payload: str
