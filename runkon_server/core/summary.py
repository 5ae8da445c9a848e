"""What a run came to, as text: a headline when it ends, a line per step when somebody reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.core.model import Counts
from runkon_server.core.rows import repeats_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.records import RunRecord, StepRecord

_LABELS: Final = {
    "pending": "-",
    "running": "...",
    "waiting": "wait",
    "completed": "ok",
    "failed": "FAIL",
    "skipped": "skip",
    "timed_out": "tout",
}
_WIDTH: Final = max(map(len, _LABELS.values()))


def headline(counts: Counts) -> str:
    """Rows of steps by how they ended: `3 of 5 steps completed, 1 failed, 1 skipped`."""
    parts = [f"{counts.completed} of {counts.total} steps completed"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if counts.skipped:
        parts.append(f"{counts.skipped} skipped")
    if counts.timed_out:
        parts.append(f"{counts.timed_out} timed out")
    return ", ".join(parts)


def counted(steps: Iterable[StepRecord]) -> Counts:
    """Count rows by how they ended."""
    total = completed = failed = skipped = timed_out = repeats = 0
    for step in steps:
        total += 1
        if step.retry_count:
            repeats += repeats_of(step)
        match step.status:
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
    return Counts(total, completed, failed, skipped, timed_out, repeats)


def summarize(run: RunRecord, steps: Iterable[StepRecord], error: str | None = None) -> str:
    """The whole story of a run: headline, one line per row in program order, how it ended.

    Args:
        run: its row.
        steps: its rows, in any order; superseded ones are left out.
        error: the run's error; None: that of its body.
    """
    standing = sorted(
        (step for step in steps if step.superseded_epoch is None),
        key=lambda step: (step.at, step.retry_count),
    )
    lines = [headline(counted(standing)), *map(_line, standing), f"run {run.status}"]
    reason = error or run.body_error
    if reason and run.status != "completed":
        lines[-1] += f": {reason}"
    return "\n".join(lines)


def _line(step: StepRecord) -> str:
    line = f"  {_LABELS[step.status]:{_WIDTH}}  {step.step_name}"
    if step.iteration:
        line += f" (iteration {step.iteration})"
    if step.retry_count and step.parallel_group_id is None:
        line += f" (attempt {step.retry_count + 1})"
    if step.step_error and step.status != "completed":
        line += f": {step.step_error.splitlines()[0]}"
    return line
