"""A run's rows as its events tell them: what somebody who only watches would believe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.rows import cut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.decision import Event

INTERNAL: Final = frozenset(
    {"retryable", "fatal", "blocked_on", "child_results", "superseded_epoch"}
)
"""Columns of a step that events need not show."""
_STATUS_BY_EVENT: Final = {
    "run_started": "running",
    "run_resumed": "running",
    "run_waiting": "waiting",
    "run_unblocked": "running",
    "run_cancel_requested": "cancelling",
}


def fold(events: Iterable[Event]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The run's status, and its step rows by id.

    A cancel that was asked for stays in force until the end, also before the run has begun.
    """
    status = "pending"
    steps: dict[str, dict[str, Any]] = {}
    for event in events:
        if status != "cancelling":
            status = _STATUS_BY_EVENT.get(event.kind, status)
        if event.kind == "run_finished":
            status = event.payload["status"]
        step = event.payload.get("step")
        if step is not None:
            steps[step["id"]] = shown(step)
        counts = event.payload.get("counts")
        if counts is not None:
            of = steps[event.payload["item"]["step_run_id"]]
            of.update({f"fan_out_{name}": count for name, count in counts.items()})
    return status, steps


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as events show it: plain JSON, texts cut, without empty texts and internal columns."""
    return {
        name: _plain(value) for name, value in row.items() if value != "" and name not in INTERNAL
    }


def _plain(value: object) -> object:
    if isinstance(value, str):
        return cut(value)
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
