"""The one place where a decision takes shape: a state to change, and what is to be written.

Nothing else emits. While a run is being restored the same code walks over rows that exist already,
so everything that would be emitted is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from runkon_server.core.decision import Decision, Event, StepWrite
from runkon_server.core.model import Counts, Memo
from runkon_server.core.rows import ENDED, repeats_of, step_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runkon_server.core.decision import ItemWrite, Order
    from runkon_server.core.model import Carried, RunState, RunStatus
    from runkon_server.core.records import ItemRecord, StepRecord


class InconsistentRowsError(ValueError):
    """The rows of a run do not go together: one is missing, or one is too many."""


class Scratch:
    """A state being changed; `state` is a copy that nobody else has seen."""

    __slots__ = (
        "_item_rows",
        "_items",
        "_known",
        "_steps",
        "events",
        "failure",
        "is_halted",
        "orders",
        "run",
        "state",
    )

    def __init__(
        self,
        state: RunState,
        known: dict[str, list[StepRecord]] | None = None,
        items: Sequence[ItemRecord] = (),
    ) -> None:
        self.state = state
        self.run: dict[str, Any] = {}
        self.failure: str | None = None
        """Why the run ends failed in this decision, although all is given up as in a cancel."""
        self.is_halted = False
        """A cancel is known of and comes next: what happened before it counts, nothing begins."""
        self.events: list[Event] = []
        self.orders: list[Order] = []
        self._steps: dict[str, StepWrite] = {}
        self._items: dict[str, ItemWrite] = {}
        self._known = known
        self._item_rows = items

    @property
    def is_restoring(self) -> bool:
        """Whether the state is being rebuilt from rows; then nothing may start."""
        return self._known is not None

    def is_known(self, at: str) -> bool:
        """Whether there are standing rows at a place that the walk has not come to yet."""
        if self._known is not None:
            return at in self._known
        memo = self.state.memo
        if memo is None:
            return False
        groups = memo.groups
        index = bisect_left(groups, at, memo.index, key=_place)
        return index < len(groups) and groups[index][0].at == at

    def take(self, at: str) -> Sequence[StepRecord] | None:
        """The standing rows at a place, by attempt, once; None: the step has not been started.

        In a resumed run these are rows of earlier epochs. The walk goes in program order, so those
        that it passes by are not reached in this epoch: they are superseded.
        """
        if self._known is not None:
            return self._known.pop(at, None)
        memo = self.state.memo
        return None if memo is None else self._recall(memo, at)

    def _recall(self, memo: Memo, at: str) -> Sequence[StepRecord] | None:
        groups, index, found = memo.groups, memo.index, None
        while index < len(groups) and groups[index][0].at < at:
            self.supersede(groups[index])
            index += 1
        if index < len(groups) and groups[index][0].at == at:
            found = groups[index]
            index += 1
        self.state.memo = Memo(groups, index) if index < len(groups) else None
        return found

    def forget_memo(self, *, superseding: bool) -> None:
        """The body is over: what lies ahead of it will not be reached in this epoch."""
        memo = self.state.memo
        if memo is not None and superseding:
            for group in memo.groups[memo.index :]:
                self.supersede(group)
        self.state.memo = None
        self.state.carry = {}

    def supersede(self, records: Iterable[StepRecord]) -> None:
        """These rows count no more from this epoch on."""
        epoch = self.state.setup.epoch
        for record in records:
            self.update_step(record.id, {"superseded_epoch": epoch})
            self.state.counts = without(self.state.counts, record)

    def carried(self, at: str) -> Carried | None:
        """What a step that starts again takes over from the epoch before, once."""
        found = self.state.carry.get(at)
        if found is not None:
            self.state.carry = {
                place: carried for place, carried in self.state.carry.items() if place != at
            }
        return found

    def may_start(self) -> bool:
        """Whether new work is allowed; if not, the rest of the section is given up.

        Raises:
            InconsistentRowsError: in a restore, a row is missing that must be there.
        """
        if self.is_stopping():
            self.state.frame = None
            return False
        self.require_live()
        return True

    def require_live(self) -> None:
        """What comes next has a row if it has happened.

        Raises:
            InconsistentRowsError: in a restore, where that row was not found.
        """
        if self._known is not None:
            raise InconsistentRowsError(f"run {self.state.setup.run_id}: a started step has no row")

    def is_stopping(self) -> bool:
        """Whether a cancel forbids new work; derived, so that it needs no memory of its own."""
        state = self.state
        return state.cancel is not None and (state.phase == "body" or state.force)

    def set_status(self, status: RunStatus) -> None:
        """The run's status changes."""
        self.state.status = status
        self.run["status"] = status

    def insert_step(self, step_id: str, row: dict[str, Any]) -> None:
        """A row that did not exist; `row` is copied."""
        columns = row.copy()
        columns["id"] = step_id
        self._steps[step_id] = StepWrite(step_id, True, columns)
        self._count(row["status"], 1)

    def update_step(self, step_id: str, columns: dict[str, Any]) -> None:
        """Columns of an existing row change; `columns` is copied."""
        if self._known is not None:
            return
        write = self._steps.get(step_id)
        if write is None:
            self._steps[step_id] = StepWrite(step_id, insert=False, columns=dict(columns))
        else:
            write.columns.update(columns)
        status = columns.get("status")
        if status in ENDED:
            self._count(status, 0)
        if "retry_count" in columns:
            counts = self.state.counts
            self.state.counts = counts._replace(repeats=counts.repeats + 1)

    def items_of(self, step_id: str) -> list[ItemRecord]:
        """In a restore, the rows of a foreach's items by ordinal."""
        own = [item for item in self._item_rows if item.step_run_id == step_id]
        return sorted(own, key=attrgetter("ordinal"))

    def write_item(self, write: ItemWrite) -> None:
        """A row of an item is new, or changes."""
        if self._known is not None:
            return
        earlier = self._items.get(write.id)
        if earlier is None:
            self._items[write.id] = write
        else:
            earlier.columns.update(write.columns)

    def event(self, kind: str, payload: dict[str, Any]) -> None:
        """A public change of state."""
        if self._known is None:
            self.events.append(Event(kind, payload))

    def step_event(self, kind: str, step_id: str, row: dict[str, Any], **more: object) -> None:
        """A change of one step; `row` is the whole row after it."""
        if self._known is None:
            payload = step_payload(step_id, row)
            payload.update(more)
            self.events.append(Event(kind, payload))

    def order(self, order: Order) -> None:
        """Something to do after the commit."""
        if self._known is None:
            self.orders.append(order)

    def decision(self) -> Decision:
        """What has come together; the scratch must not be used after."""
        return Decision(
            self.state,
            self.run,
            tuple(self._steps.values()),
            tuple(self.events),
            tuple(self.orders),
            tuple(self._items.values()),
        )

    def _count(self, status: str, new_rows: int) -> None:
        state = self.state
        total, completed, failed, skipped, timed_out, repeats = state.counts
        total += new_rows
        match status:
            case "completed":
                completed += 1
            case "failed":
                failed += 1
            case "skipped":
                skipped += 1
            case "timed_out":
                timed_out += 1
            case _:
                pass
        state.counts = Counts(total, completed, failed, skipped, timed_out, repeats)


def without(counts: Counts, record: StepRecord) -> Counts:
    """The counts without one row."""
    status = record.status
    total, completed, failed, skipped, timed_out, repeats = counts
    return Counts(
        total - 1,
        completed - (status == "completed"),
        failed - (status == "failed"),
        skipped - (status == "skipped"),
        timed_out - (status == "timed_out"),
        repeats - repeats_of(record),
    )


def _place(group: Sequence[StepRecord]) -> str:
    return group[0].at
