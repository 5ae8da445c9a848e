"""Items of a `foreach`, as rows and as events show them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from runkon.v1 import types_pb2
from runkon_server.api.render.runs import shorten_blocked_on
from runkon_server.api.render.values import timestamp
from runkon_server.store.rows import ItemRow

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUSES: Final = {
    name.removeprefix("FAN_OUT_ITEM_STATUS_").lower(): number
    for name, number in types_pb2.FanOutItemStatus.items()
}
STATUS_NAMES: Final = {number: name for name, number in _STATUSES.items()}
"""The status as the store names it, by the contract's number."""
_COLUMNS: Final = tuple(each.name for each in fields(ItemRow))
_RENAMED: Final = {"ordinal": "position"}
_ALIKE: Final = {
    column: _RENAMED.get(column, column)
    for column in (
        "id", "step_run_id", "item_type", "item_id", "item_ref", "child_run_id", "context",
        "ordinal", "blockers", "structured_output", "error",
    )
}  # fmt: skip
"""The field of each column whose values are shown as they are."""


def render_item(item: ItemRow) -> types_pb2.FanOutItem:
    """One row of an item."""
    columns = {name: value for name in _COLUMNS if (value := getattr(item, name)) is not None}
    return types_pb2.FanOutItem(
        run_id=item.workflow_run_id,
        dispatch_time=timestamp(item.dispatched_at),
        complete_time=timestamp(item.completed_at),
        blocked_on=shorten_blocked_on(item.blocked_on) if item.blocked_on else None,
        **item_fields(columns),
    )


def item_fields(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `FanOutItem` but its run and its times, for the constructor of a message.

    Args:
        columns: by their names; none of them null, some of them perhaps of a newer server.
    """
    shown = {_ALIKE[name]: value for name, value in columns.items() if name in _ALIKE}
    shown["status"] = _STATUSES.get(
        columns.get("status", ""), types_pb2.FAN_OUT_ITEM_STATUS_UNSPECIFIED
    )
    return shown
