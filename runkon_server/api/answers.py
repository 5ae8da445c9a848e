"""What workers report of the items they found and the gates they looked at, checked.

As with results, a list that breaks a limit is no report to refuse: it becomes a step that failed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_server.api.parsing.checks import NAME_BYTES, NOTE_BYTES, TEXT_BYTES, size_of, span_of
from runkon_server.api.parsing.gates import SELECTIONS_MAX
from runkon_server.core.facts import (
    Dependency,
    GateDecided,
    GateDecision,
    GatePolled,
    Item,
    ItemsCollected,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runkon.v1 import workers_pb2

__all__ = ["BadOutputError", "parse_decision", "parse_items", "parse_look", "short"]

OUTPUT_LIMIT: Final = "OUTPUT_LIMIT"
OUTPUT_INVALID: Final = "OUTPUT_INVALID"
ITEMS_MAX: Final = 10_000
ITEM_ID_BYTES_MAX: Final = 256
ITEM_REF_BYTES_MAX: Final = 1024
DEPENDENCIES_MAX: Final = 100
"""Of one item."""
ALL_DEPENDENCIES_MAX: Final = 100_000
"""Of all items together: a message has room for a million, which would take seconds."""
DELAY_MIN: Final = timedelta(seconds=1)
DELAY_MAX: Final = timedelta(hours=1)


class BadOutputError(Exception):
    """What was reported cannot be stored; `args` are a code and what is wrong."""


def parse_items(task_id: str, found: workers_pb2.ItemList) -> ItemsCollected:
    """The list as a fact.

    Raises:
        BadOutputError: it breaks a limit, or an item has no identity.
    """
    if len(found.items) > ITEMS_MAX:
        raise BadOutputError(
            OUTPUT_LIMIT, f"{len(found.items)} items, at most {ITEMS_MAX} are allowed"
        )
    if (count := sum(len(item.depends_on) for item in found.items)) > ALL_DEPENDENCIES_MAX:
        raise BadOutputError(
            OUTPUT_LIMIT, f"{count} dependencies, at most {ALL_DEPENDENCIES_MAX} are allowed"
        )
    for number, item in enumerate(found.items):
        _check_item(number, item)
    return ItemsCollected(
        task_id=task_id,
        items=tuple(
            Item(item.item_type, item.item_id, item.item_ref, dict(item.context))
            for item in found.items
        ),
        dependencies=tuple(
            Dependency(blocker, item.item_id) for item in found.items for blocker in item.depends_on
        ),
    )


def _check_item(number: int, item: workers_pb2.Item) -> None:
    if not item.item_id:
        raise BadOutputError(OUTPUT_INVALID, f"item {number} has no `item_id`")
    if len(item.depends_on) > DEPENDENCIES_MAX:
        raise BadOutputError(
            OUTPUT_LIMIT,
            f"item {number} depends on {len(item.depends_on)} others,"
            f" at most {DEPENDENCIES_MAX} are allowed",
        )
    for what, text, limit in _texts(item):
        if "\0" in text:
            raise BadOutputError(OUTPUT_INVALID, f"{what} of item {number} holds a NUL character")
        if (size := size_of(text)) > limit:
            raise BadOutputError(
                OUTPUT_LIMIT, f"{what} of item {number} has {size} bytes, of at most {limit}"
            )
    if item.context and sum(map(size_of, item.context.values())) > TEXT_BYTES:
        raise BadOutputError(
            OUTPUT_LIMIT, f"`context` of item {number} has more than {TEXT_BYTES} bytes"
        )


def _texts(item: workers_pb2.Item) -> Iterator[tuple[str, str, int]]:
    yield "`item_id`", item.item_id, ITEM_ID_BYTES_MAX
    yield "`item_type`", item.item_type, NAME_BYTES
    yield "`item_ref`", item.item_ref, ITEM_REF_BYTES_MAX
    for name, value in item.context.items():
        yield "a name in `context`", name, NAME_BYTES
        yield "`context`", value, TEXT_BYTES
    for other in item.depends_on:
        yield "`depends_on`", other, ITEM_ID_BYTES_MAX


def parse_look(task_id: str, answer: workers_pb2.GateAnswer) -> GatePolled:
    """The look as a fact: what it says if it has decided nothing.

    Raises:
        BadOutputError: it selects what cannot be options.
    """
    _check_selections(answer.approved.selections)
    pending = answer.pending
    delay = span_of(pending.delay) if pending.HasField("delay") else None
    return GatePolled(
        task_id=task_id,
        delay_s=(None if delay is None else min(max(delay, DELAY_MIN), DELAY_MAX).total_seconds()),
        note=short(pending.note, NOTE_BYTES) or None,
    )


def _check_selections(selections: Sequence[str]) -> None:
    if len(selections) > SELECTIONS_MAX:
        raise BadOutputError(
            OUTPUT_LIMIT, f"{len(selections)} selections, at most {SELECTIONS_MAX} are allowed"
        )
    if len(set(selections)) < len(selections):
        raise BadOutputError(OUTPUT_INVALID, "the selections name the same option twice")
    if (size := sum(map(size_of, selections))) > TEXT_BYTES:
        raise BadOutputError(
            OUTPUT_LIMIT, f"{size} bytes of selections, at most {TEXT_BYTES} are allowed"
        )


def parse_decision(
    task_id: str, answer: workers_pb2.GateAnswer, principal: str
) -> GateDecided | None:
    """What a checked answer decides; None: nothing yet.

    Args:
        task_id: of the look; it begins with the gate's id.
        principal: in whose name the worker decides.
    """
    gate_id = task_id.rpartition("#")[0]
    match answer.WhichOneof("answer"):
        case "approved":
            return GateDecided(
                gate_id=gate_id,
                decision=GateDecision.APPROVED,
                feedback=short(answer.approved.feedback, TEXT_BYTES) or None,
                selections=tuple(answer.approved.selections),
                decided_by=principal,
                poll_id=task_id,
            )
        case "rejected":
            return GateDecided(
                gate_id=gate_id,
                decision=GateDecision.REJECTED,
                feedback=short(answer.rejected.reason, TEXT_BYTES),
                decided_by=principal,
                poll_id=task_id,
            )
        case _:
            return None


def short(text: str, limit: int) -> str:
    """The text without NUL, cut to so many bytes."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if size_of(text) <= limit:
        return text
    return text.encode()[:limit].decode(errors="ignore")
