"""Whether runs came to what their programs say on paper: the same effects, and the same end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.verify.chaos.forms import Label
    from runkon_server.verify.chaos.programs import Book, Start
    from runkon_server.verify.evidence import Evidence, RunEvidence

EXCUSES: Final = frozenset({"WORKER_LOST"})
"""Codes of steps that faults alone decided: no worker lived long enough, time and again."""
NAME: Final = "S15"


def excused(evidence: Evidence) -> set[str]:
    """Roots of the trees in which a fault decided how a step ended."""
    return {
        _root_of(run)
        for run in evidence.runs.values()
        if any(step.get("error_code") in EXCUSES for step in run.steps)
    }


def unexpected(evidence: Evidence, book: Book) -> Iterator[Violation]:
    """Effects that are missing or too many, and runs that ended otherwise than on paper.

    Of a cancelled run no effect is too few: it may have been cancelled before it.
    """
    starts = {start.id: start for start in book.starts}
    seen = _effects_by_root(evidence)
    spared = excused(evidence)
    for run in evidence.runs.values():
        program = (run.row.get("labels") or {}).get("program")
        if _root_of(run) != run.run_id or program not in starts or run.run_id in spared:
            continue
        yield from _differences(run, seen.get(run.run_id, Counter()), starts[program])


def _differences(run: RunEvidence, seen: Counter[Label], start: Start) -> Iterator[Violation]:
    status = str(run.row["status"])
    wanted = start.outcome
    is_cancelled = status in {"cancelled", "cancelling"}
    if not is_cancelled and status != wanted.status:
        what = f"{start.id} is {status}, and should be {wanted.status}"
        yield Violation(invariant=NAME, run_id=run.run_id, what=what)
    for label in seen - wanted.effects:
        times = f"{seen[label]} times instead of {wanted.effects[label]}"
        what = f"{start.id} had the effect {_words(label)} {times}"
        yield Violation(invariant=NAME, run_id=run.run_id, what=what)
    if is_cancelled:
        return
    for label in wanted.effects - seen:
        times = f"{seen[label]} times instead of {wanted.effects[label]}"
        what = f"{start.id} had the effect {_words(label)} only {times}"
        yield Violation(invariant=NAME, run_id=run.run_id, what=what)


def _effects_by_root(evidence: Evidence) -> dict[str, Counter[Label]]:
    """What each tree of runs did; an effect repeated under its idempotency key counts once."""
    found: dict[str, Counter[Label]] = {}
    counted: set[tuple[str, int, str]] = set()
    for effect in evidence.effects:
        outcome = str(effect.payload["outcome"])
        once = (effect.idem_key, effect.attempt, outcome)
        run = evidence.runs.get(effect.run_id)
        if once in counted or run is None:
            continue
        counted.add(once)
        label = (
            *(str(effect.payload["workflow"]), str(effect.payload["action"])),
            *(effect.iterations, effect.item or "", effect.attempt, outcome),
        )
        found.setdefault(_root_of(run), Counter())[label] += 1
    return found


def _root_of(run: RunEvidence) -> str:
    return str(run.row.get("root_run_id") or run.run_id)


def _words(label: Label) -> str:
    workflow, action, passes, item, attempt, outcome = label
    where = "".join(f" pass {number}" for number in passes) + (f" item {item}" if item else "")
    return f"{workflow}: {action}{where} attempt {attempt} {outcome}"
