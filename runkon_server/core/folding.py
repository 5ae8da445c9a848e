"""A run as its events tell it: what somebody who only watches would believe, after any of them.

The log is complete in this sense: folding all events of a run gives its status and its rows of
steps, items and gates, but for long texts, which events carry cut, and for the columns below, which
are the engine's own business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.events import ERROR_CUT_BYTES
from runkon_server.core.rows import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

STEP_INTERNAL: Final = frozenset(
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


class RunFold:
    """What the events so far amount to; `follow` takes one more.

    A cancel that was asked for stays in force until the end, also before the run has begun.
    """

    __slots__ = (
        "blocked_on",
        "epoch",
        "error",
        "gates",
        "items",
        "metrics",
        "outcome",
        "phase",
        "result_summary",
        "status",
        "steps",
    )

    def __init__(self) -> None:
        self.status = "pending"
        self.epoch = 1
        self.phase = "body"
        """`body`, `always` or `done`; a run without an always section goes from one to the last."""
        self.outcome: str | None = None
        """How the body ended; None before."""
        self.blocked_on: dict[str, Any] | None = None
        self.error: str | None = None
        self.result_summary: str | None = None
        self.metrics: dict[str, Any] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        """By id, in the order in which they began; of all epochs."""
        self.items: dict[str, dict[str, Any]] = {}
        """By id. An item is told of once something happens to it."""
        self.gates: dict[str, dict[str, Any]] = {}
        """By id, as in `gate_waiting` and then in `gate_resolved`; `votes` as a list of votes."""

    def follow(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Go on with the next event of the run."""
        if self.status != "cancelling":
            self.status = _STATUS_BY_EVENT.get(kind, self.status)
        match kind:
            case "run_waiting":
                self.blocked_on = payload["blocked_on"]
            case "run_unblocked" | "run_cancel_requested":
                self.blocked_on = None
            case "run_resumed":
                self._reopen()
            case "always_started":
                self.phase, self.outcome = "always", payload["workflow_status"]
            case "run_finished":
                self._finish(payload)
            case "metrics_updated":
                self.metrics = payload["metrics"]
            case "gate_waiting" | "gate_resolved":
                gate = payload["gate"]
                self.gates.setdefault(gate["id"], {"votes": []}).update(gate)
            case "gate_voted":
                self.gates[payload["gate_id"]]["votes"].append(payload["vote"])
            case _:
                pass
        self._follow_rows(payload)

    def _follow_rows(self, payload: Mapping[str, Any]) -> None:
        step = payload.get("step")
        if step is not None:
            self.steps[step["id"]] = visible_step(step)
        item = payload.get("item")
        if item is not None:
            self.items.setdefault(item["id"], {}).update(visible_item(item))
        counts = payload.get("counts")
        if counts is not None and item is not None:
            of = self.steps[item["step_run_id"]]
            of.update({f"fan_out_{name}": count for name, count in counts.items()})

    def _reopen(self) -> None:
        self.epoch += 1
        self.phase, self.outcome = "body", None
        self.blocked_on = self.error = self.result_summary = None

    def _finish(self, payload: Mapping[str, Any]) -> None:
        self.status = payload["status"]
        self.phase = "done"
        self.outcome = self.outcome or self.status
        self.blocked_on = None
        self.error = payload.get("error")
        self.result_summary = payload.get("result_summary")


def visible_step(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as events show it: plain JSON, texts cut, without empty texts and internal columns."""
    return {
        name: _plain(value)
        for name, value in row.items()
        if value != "" and name not in STEP_INTERNAL
    }


def visible_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an item as events show it."""
    return {
        name: cut(value, ERROR_CUT_BYTES) if name == "error" and value else _plain(value)
        for name, value in row.items()
        if name not in ITEM_INTERNAL
    }


def _plain(value: object) -> object:
    if isinstance(value, str):
        return cut(value)
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
