"""What a program printed → the output of its action."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runkon_client.worker.actions import ActionOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK: Final = "<<<FLOW_OUTPUT>>>"
_CONTEXT_CHARS: Final = 2_000  # as of a script


def read_output(text: str, metadata: Mapping[str, str | float]) -> ActionOutput:
    """The output that a text stands for.

    A text that is one JSON object is the structured output, with `markers` (a list of texts) and
    `context` (a text) taken out of it. A text with a FLOW_OUTPUT block is for the server to
    interpret. The beginning of any other text is the context.
    """
    if _BLOCK in text:
        return ActionOutput(raw_output=text, metadata=metadata)
    found = _object_in(text)
    if found is None:
        context = text.strip()[:_CONTEXT_CHARS]
        return ActionOutput(context=context, result_text=text, metadata=metadata)
    markers, context = found.get("markers", []), found.get("context", "")
    return ActionOutput(
        markers=tuple(markers), context=context, structured_output=found, metadata=metadata
    )


def _object_in(text: str) -> Mapping[str, Any] | None:
    """The object, unless its `markers` or `context` are of another type than a step's."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    markers, context = found.get("markers", []), found.get("context", "")
    is_list = isinstance(markers, list) and all(isinstance(each, str) for each in markers)
    return found if is_list and isinstance(context, str) else None
