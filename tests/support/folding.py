"""A run's rows as its events tell them: what somebody who only watches would believe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.events import ERROR_CUT_BYTES
from runkon_server.core.rows import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.core.decision import Event

INTERNAL: Final = frozenset(
    {"retryable", "fatal", "blocked_on", "child_results", "superseded_epoch"}
)
"""Columns of a step that events need not show."""
ITEM_INTERNAL: Final = frozenset({"structured_output", "blocked_on"})
"""The same of items."""
_STATUS_BY_EVENT: Final = {
    "run_started": "running",
    "run_resumed": "running",
    "run_waiting": "waiting",
    "run_unblocked": "running",
    "run_cancel_requested": "cancelling",
}


class Folded:
    """What the events so far amount to: the run's status, and rows of steps and items by id.

    A cancel that was asked for stays in force until the end, also before the run has begun.
    """

    def __init__(self) -> None:
        self.status = "pending"
        self.steps: dict[str, dict[str, Any]] = {}
        self.items: dict[str, dict[str, Any]] = {}
        self._seen = 0

    def follow(self, events: Sequence[Event]) -> None:
        """Go on with what is new in a list that only grows."""
        for event in events[self._seen :]:
            self._follow(event)
        self._seen = len(events)

    def _follow(self, event: Event) -> None:
        payload = event.payload
        if self.status != "cancelling":
            self.status = _STATUS_BY_EVENT.get(event.kind, self.status)
        if event.kind == "run_finished":
            self.status = payload["status"]
        step = payload.get("step")
        if step is not None:
            self.steps[step["id"]] = shown(step)
        item = payload.get("item")
        if item is not None:
            self.items.setdefault(item["id"], {}).update(shown_item(item))
        counts = payload.get("counts")
        if counts is not None:
            of = self.steps[payload["item"]["step_run_id"]]
            of.update({f"fan_out_{name}": count for name, count in counts.items()})


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as events show it: plain JSON, texts cut, without empty texts and internal columns."""
    return {
        name: _plain(value) for name, value in row.items() if value != "" and name not in INTERNAL
    }


def shown_item(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an item as events show it."""
    return {
        name: cut(value, ERROR_CUT_BYTES) if name == "error" else _plain(value)
        for name, value in row.items()
        if name not in ITEM_INTERNAL
    }


def _plain(value: object) -> object:
    if isinstance(value, str):
        return cut(value)
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
