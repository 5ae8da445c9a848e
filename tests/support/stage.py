"""Where a statement is shown: one test body, played in memory or through gRPC on PostgreSQL.

In memory the pure core decides over rows that a dictionary keeps (`stage_memory`), and the laws of
the engine are checked after every fact. Live, a replica process serves and everything goes through
the public API (`stage_live`), so that what the body sees is what any caller sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence


PROVIDED: Final = "thing"
"""The type of an item unless another one is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a step, as far as callers see it."""

    id: str
    name: str
    role: str
    status: str
    position: int
    iteration: int
    retry_count: int
    epoch: int
    superseded_epoch: int = 0
    """0: it stands."""
    result_text: str = ""
    context: str = ""
    markers: tuple[str, ...] = ()
    structured_output: str = ""
    error: str = ""
    error_code: str = ""
    child_run_id: str = ""
    condition_met: bool | None = None
    fan_out: tuple[int, int, int, int] | None = None
    """Items: total, completed, failed, skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """A row of an item of a foreach."""

    item_id: str
    status: str
    child_run_id: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a worker was given with a task."""

    name: str
    run_id: str
    action: str
    inputs: Mapping[str, str]
    prior_contexts: list[dict[str, Any]] | None
    """None: not sent along."""
    attempt: int
    retries_remaining: int
    iterations: tuple[int, ...]
    retry_error: str = ""
    gate_feedback: str | None = None
    identity: str = ""
    dry_run: bool = False
    snippets: tuple[str, ...] = ()
    output_schema: str = ""
    idempotency_key: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of a script."""
    text: str = ""
    """Of a script."""
    timeout_s: float | None = None
    """Of a script."""


class Refused(Exception):
    """What was asked for was refused; `reason` is that of the API's error table."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class Stage(ABC):
    """One run that is played by hand, and the runs below it.

    Whatever answers (`complete`, `approve`, …) waits until what it answers is there, and fails if
    it does not come. What only looks (`rows`, `kinds`, …) shows the present: await a condition with
    `until`, `until_open`, `until_status` or `end` before. A step of the child run of a foreach's
    item may be named `STEP@ITEM`.
    """

    is_live: bool
    run_id: str

    @abstractmethod
    async def has_run(self) -> bool:
        """Whether any run was made."""

    @abstractmethod
    async def put(self, name: str, body: str) -> None:
        """Store another workflow, for child runs; `body` is what stands in its braces."""

    @abstractmethod
    async def start(
        self,
        body: str,
        inputs: Mapping[str, str] | None = None,
        *,
        schemas: Mapping[str, str] | None = None,
        snippets: Mapping[str, str] | None = None,
        fail_fast: bool = True,
        dry_run: bool = False,
        starter: str = "starter",
        is_delayed: bool = False,
    ) -> None:
        """Start the run of a workflow `w` with these contents.

        Args:
            is_delayed: leave it pending for a while.

        Raises:
            Refused: the contents are wrong, or inputs are missing.
        """

    @abstractmethod
    async def complete(self, *names: str, **result: Any) -> None:
        """The open task of each of these steps completes, one after the other.

        Args:
            names: of steps, in this run or below it.
            result: `result_text`, `context`, `markers`, `structured_output`, `output_file`,
                `raw_output`, `metadata`.
        """

    @abstractmethod
    async def fail(self, name: str, error: str = "broken", *, retryable: bool = True) -> None:
        """The open task of a step fails."""

    @abstractmethod
    async def contradict(self, name: str) -> None:
        """The worker says of the step that it answered last that it failed; that must not count."""

    @abstractmethod
    async def stopped(self, name: str) -> None:
        """The worker says that it has stopped a step, asked or not."""

    @abstractmethod
    async def collect(
        self,
        name: str,
        items: Sequence[str],
        *,
        types: Sequence[str] = (),
        edges: Sequence[tuple[str, str]] = (),
        context: Mapping[str, str] | None = None,
    ) -> None:
        """The provider that a foreach asks finds these ids.

        Args:
            name: of the foreach.
            items: their ids.
            types: of each item; without them all are `PROVIDED`.
            edges: (blocker, dependent) each.
            context: of every item.
        """

    @abstractmethod
    async def approve(
        self,
        feedback: str = "",
        *,
        selections: Sequence[str] = (),
        who: str = "ann",
        gate: str = "",
    ) -> None:
        """Somebody approves the open gate (of several, the one named).

        Raises:
            Refused: selections outside the options, or the gate is decided.
        """

    @abstractmethod
    async def reject(self, feedback: str = "", *, who: str = "ann", gate: str = "") -> None:
        """Somebody rejects the open gate.

        Raises:
            Refused: the gate is decided.
        """

    @abstractmethod
    async def pass_time(self, kind: str) -> None:
        """The one timer of a kind goes off: `retry`, `deadline`, `grace`, `gate`, `poll`."""

    @abstractmethod
    async def cancel(
        self, reason: str = "enough", *, force: bool = False, run_id: str = ""
    ) -> None:
        """Somebody cancels the run, or another one of the tree.

        Raises:
            Refused: it has ended otherwise.
        """

    @abstractmethod
    async def resume(self, mode: str = "normal", *, step: str = "") -> None:
        """Take the ended run up again: `normal`, `from_step` with the name of a step, `restart`.

        Raises:
            Refused: the run cannot be resumed so.
        """

    @abstractmethod
    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Return once a look at the stage shows something."""

    @abstractmethod
    async def until_open(self, *names: str) -> None:
        """Return once exactly the tasks of these steps are open, in all runs of the tree."""

    @abstractmethod
    async def until_status(self, status: str) -> None:
        """Return once the run has this status."""

    @abstractmethod
    async def status(self, run_id: str = "") -> str:
        """The run's status, or that of another run of the tree."""

    @abstractmethod
    async def error(self) -> str:
        """The run's error; empty: none."""

    @abstractmethod
    async def summary(self) -> str:
        """The run's `result_summary`."""

    @abstractmethod
    async def metrics(self) -> dict[str, float]:
        """The run's sums by the names that workers report them under, those that are not 0."""

    @abstractmethod
    async def blocked_on(self) -> str:
        """The type of the gate that the run waits for; empty: it waits for none."""

    @abstractmethod
    async def rows(self, name: str = "", *, run_id: str = "") -> list[Row]:
        """Rows in program order, superseded ones too; of one step, of another run of the tree."""

    @abstractmethod
    async def items(self, name: str) -> list[ItemRow]:
        """Rows of the items of the newest foreach of that name, in the provider's order."""

    @abstractmethod
    async def kinds(self, run_id: str = "") -> list[str]:
        """Kinds of the run's events, or of another run's, in order, such as `step_started`."""

    @abstractmethod
    async def event(self, kind: str) -> dict[str, Any]:
        """The payload of the newest event of a kind, as the core names its parts."""

    @abstractmethod
    def given(self, name: str, turn: int = -1) -> Given:
        """A task that a step was given: the newest one, or that of a turn, counted from 0."""

    @abstractmethod
    def times_given(self, name: str) -> int:
        """How often a step was handed out."""

    @abstractmethod
    async def was_asked_to_stop(self, name: str) -> bool:
        """Whether the worker of a step was told to stop."""

    @abstractmethod
    async def child_inputs(self, run_id: str) -> dict[str, str]:
        """The inputs of another run of the tree."""

    async def end(self) -> str:
        """Return the run's terminal status once it has one."""
        await self.until_terminal()
        return await self.status()

    @abstractmethod
    async def until_terminal(self) -> None:
        """Return once the run has ended."""

    async def offered(self, name: str, times: int = 1) -> Given:
        """The newest task of a step, once that many of it have been handed out."""

        async def is_so() -> bool:
            return self.times_given(name) >= times

        await self.until(is_so, f"step {name} is handed out {times} times")
        return self.given(name)

    async def row(self, name: str) -> Row:
        """The only row of a step."""
        (row,) = await self.rows(name)
        return row

    async def statuses(self, name: str = "") -> list[str]:
        """Statuses of rows, in program order."""
        return [row.status for row in await self.rows(name)]

    async def names(self) -> list[str]:
        """Names of the steps that have rows, in program order."""
        return [row.name for row in await self.rows()]
