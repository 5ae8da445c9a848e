"""What a foreach came to: a sentence for people, and a structured output for later steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.facts import Item
    from runkon_server.core.model import FanCounts

OUTPUT_BYTES: Final = 512 * 1024
"""A larger aggregate is left out: the items can be listed instead."""


def sentence(counts: FanCounts, provider: str) -> str:
    """`foreach over tickets: 3 of 5 items completed, 1 failed, 1 skipped`."""
    if not counts.total:
        return f"foreach over {provider}: nothing to process"
    parts = [f"foreach over {provider}: {counts.completed} of {counts.total} items completed"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if counts.skipped:
        parts.append(f"{counts.skipped} skipped")
    left = counts.total - counts.completed - counts.failed - counts.skipped
    if left:
        parts.append(f"{left} not started")
    return ", ".join(parts)


def aggregate(ended: Iterable[tuple[Item, str, str | None]]) -> str | None:
    """`{"items":[{"item_id","status","output"}, …]}` sorted by id; None if it is too large.

    Args:
        ended: items with their status and the structured output of their child, JSON text.
    """
    entries = [
        {"item_id": item.item_id, "status": status, "output": _parsed(output)}
        for item, status, output in sorted(ended, key=_identity)
    ]
    text = json.dumps({"items": entries}, ensure_ascii=False, separators=(",", ":"))
    return text if len(text.encode()) <= OUTPUT_BYTES else None


def _identity(ended: tuple[Item, str, str | None]) -> tuple[str, str]:
    return ended[0].item_id, ended[0].item_type


def _parsed(output: str | None) -> Any:  # noqa: ANN401 - any JSON value
    if output is None:
        return None
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return None
