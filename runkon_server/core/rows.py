"""Rows of steps as they are written, and as events show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.events import TEXT_CUT_BYTES
from runkon_server.core.model import Completion

if TYPE_CHECKING:
    from runkon_server.core.model import Options, Place
    from runkon_server.core.records import StepRecord

_TEXTS: Final = (
    "result_text",
    "context_out",
    "structured_output",
    "step_error",
    "output_file",
    "gate_prompt",
    "gate_feedback",
)
_LISTS: Final = ("iterations", "markers_out", "gate_selections")
_UTF8_BYTES_MAX: Final = 4
ENDED: Final = frozenset({"completed", "failed", "skipped", "timed_out"})
CANCELLED_CODE: Final = "CANCELLED"
"""`error_code` of a step that ended because it was told to."""


def new_row(
    columns: dict[str, Any], place: Place, epoch: int, attempt: int, status: str
) -> dict[str, Any]:
    """The columns that a row is inserted with, but its id."""
    at, passes, position = place
    return {
        **columns,
        "at": at,
        "position": position,
        "iteration": passes[-1] if passes else 0,
        "iterations": passes,
        "epoch": epoch,
        "retry_count": attempt,
        "status": status,
    }


def repeats_of(record: StepRecord) -> int:
    """Attempts after the first on this very row: those of scripts and branches share theirs."""
    shares = record.role == "script" or record.parallel_group_id is not None
    return record.retry_count if shares else 0


def step_payload(step_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """The part of an event that shows a step: the row, without nulls, as plain JSON, texts cut."""
    step = row.copy()
    step["id"] = step_id
    for name in _LISTS:
        if name in step:
            step[name] = list(step[name])
    if "gate_options" in step:
        step["gate_options"] = [list(pair) for pair in step["gate_options"]]
    return {"step": step, "truncated": True} if _cut_texts(step) else {"step": step}


def _cut_texts(step: dict[str, Any]) -> bool:
    was_cut = False
    for name in _TEXTS:
        if name in step and len(step[name]) * _UTF8_BYTES_MAX > TEXT_CUT_BYTES:
            whole = step[name]
            step[name] = cut(whole)
            was_cut = was_cut or len(step[name]) < len(whole)
    return was_cut


def cut(text: str, limit_bytes: int = TEXT_CUT_BYTES) -> str:
    """As much of the beginning of a text as an event carries."""
    if len(text) * _UTF8_BYTES_MAX <= limit_bytes:
        return text
    return text.encode()[:limit_bytes].decode(errors="ignore")


def option_list(options: Options | None) -> list[dict[str, str]]:
    """Options of a gate as events and `blocked_on` show them."""
    return [{"key": key, "label": label} for key, label in options or ()]


def completion_of(record: StepRecord) -> Completion:
    """What a completed row says to later steps."""
    return Completion(
        record.context_out or "",
        record.markers_out or (),
        record.structured_output,
        record.output_file,
    )
