"""Gate resolvers: the functions that look how what a gate waits for stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from runkon.v1 import gates_pb2
from runkon_client.decode import by_number
from runkon_client.values import ApprovalMode, GateOption
from runkon_client.worker.task import Task, TaskHost

if TYPE_CHECKING:
    from datetime import timedelta

    from runkon.v1 import workers_pb2
    from runkon_client.values.gates import PullRequest, ReportedPullRequest

_APPROVAL_MODES: Final = by_number(gates_pb2.DESCRIPTOR, ApprovalMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """Go on, in the name of the worker's principal."""

    feedback: str = ""
    """Words for the next steps, which see them as `gate_feedback`."""
    selections: tuple[str, ...] = ()
    """Keys of the gate's options; they replace the feedback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Do not go on: the run's body ends with this reason as its error."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Undecided: look again."""

    note: str = ""
    """What the gate waits for, for people."""
    delay: timedelta | None = None
    """Until the next look, 1 s to 1 h; None leaves it to the server."""


GateAnswer: TypeAlias = Approved | Rejected | Pending


class GateHost(TaskHost, Protocol):
    """What a look at a gate needs of its worker besides."""

    async def report_pull_request(
        self, task: GateTask, pull_request: PullRequest
    ) -> ReportedPullRequest:
        """Report it to the task's gate."""


class GateTask(Task):
    """One look at what a gate waits for. What holds for every task holds here as well."""

    __slots__ = ("_gate_host",)

    def __init__(self, lease: workers_pb2.TaskLease, host: GateHost) -> None:
        super().__init__(lease, host)
        self._gate_host = host

    @property
    def gate_id(self) -> str:
        """The gate."""
        return self._lease.gate_poll.gate_id

    @property
    def gate_name(self) -> str:
        """Name of the gate within its run."""
        return self._lease.gate_poll.gate_name

    @property
    def gate_type(self) -> str:
        """Type word of the gate."""
        return self._lease.gate_poll.gate_type

    @property
    def prompt(self) -> str:
        """What people are asked; empty if the gate has no prompt."""
        return self._lease.gate_poll.prompt

    @property
    def options(self) -> tuple[GateOption, ...]:
        """What may be selected; empty if there is nothing to select."""
        return tuple(
            GateOption(key=each.key, label=each.label) for each in self._lease.gate_poll.options
        )

    @property
    def min_approvals(self) -> int:
        """Approvals that a pull request needs, by distinct people other than its author."""
        return self._lease.gate_poll.min_approvals

    @property
    def approval_mode(self) -> ApprovalMode:
        """What a `pr_approval` gate looks at."""
        return _APPROVAL_MODES.get(self._lease.gate_poll.approval_mode, ApprovalMode.UNKNOWN)

    async def report_pull_request(self, pull_request: PullRequest) -> ReportedPullRequest:
        """Tell a `pr_approval` or `pr_checks` gate how its pull request stands.

        The server judges it by its own rules. If nothing is missing the gate is approved then, and
        this task no longer wanted.

        Raises:
            PreconditionError: the gate is of another type, or it was decided meanwhile.
            RunkonClientError: the server cannot be told.
        """
        return await self._gate_host.report_pull_request(self, pull_request)


GateResolver: TypeAlias = Callable[[GateTask], GateAnswer | Awaitable[GateAnswer]]
