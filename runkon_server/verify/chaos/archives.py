"""The folder that a rig leaves: everything the verdict rests on, and the verdict itself.

`evidence.json` (what `python -m runkon_server.verify` reads), `rig.json`, `schedule.jsonl`,
`programs.json`, the histories and effects of all processes, their logs, `report.txt`; and
`stuck.json` if runs were stuck. A verdict is always reached from the folder, so that it is the same
years later.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server.verify import evidence as evidences
from runkon_server.verify.chaos import expectations, gathering
from runkon_server.verify.chaos.figures import (
    Figures,
    Floors,
    as_text,
    count,
    count_logs,
    vacuities,
)
from runkon_server.verify.chaos.nemesis import DoneFault
from runkon_server.verify.chaos.programs import make_book
from runkon_server.verify.chaos.schedule import Kind, PlannedFault
from runkon_server.verify.invariants import check
from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runkon_server.verify.evidence import Evidence

SCHEDULE: Final = "schedule.jsonl"
PROGRAMS: Final = "programs.json"
_EVIDENCE: Final = "evidence.json"
_RIG: Final = "rig.json"
_REPORT: Final = "report.txt"
_SHOWN_MAX: Final = 10
"""Of each invariant."""


class NoArchiveError(Exception):
    """The folder was not left by a rig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RigRecord:
    """What the rig itself knows of its run."""

    seed: int
    seconds: float
    kinds: Sequence[str]
    """The faults that had to be done at least once."""
    floors: Floors = field(default_factory=Floors)
    faults: Sequence[DoneFault] = ()
    worst_takeover_s: float = 0.0
    takeovers: int = 0
    notifications_lost: int = 0
    found: Sequence[Violation] = ()
    """What it saw itself, such as runs that were stuck."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    figures: Figures
    violations: Sequence[Violation]

    @property
    def text(self) -> str:
        """For people: the figures, then what is wrong."""
        shown: list[str] = []
        of_kind: Counter[str] = Counter()
        for violation in self.violations:
            of_kind[violation.invariant] += 1
            if of_kind[violation.invariant] <= _SHOWN_MAX:
                shown.append(f"  {violation}\n")
        for name, times in sorted(of_kind.items()):
            if times > _SHOWN_MAX:
                shown.append(f"  … and {times - _SHOWN_MAX} more of {name}\n")
        return f"{as_text(self.figures)}{len(self.violations)} violations\n{''.join(shown)}"


def gather(url: str, folder: Path) -> Evidence:
    """What the database and the histories in the folder hold."""
    evidence = gathering.read_database(url)
    histories = gathering.read_lines(folder, "history")
    effects = gathering.read_lines(folder, "effects")
    return replace(
        evidence,
        operations=gathering.operations_of(histories),
        subscriptions=gathering.subscriptions_of(histories),
        effects=[*gathering.effects_of(effects, evidence)],
        are_effects_complete=True,
    )


def write(folder: Path, evidence: Evidence, record: RigRecord) -> None:
    """Write down what a verdict needs."""
    folder.joinpath(_EVIDENCE).write_text(evidences.dump(evidence), encoding="utf-8")
    folder.joinpath(_RIG).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")


def judge(folder: Path) -> Verdict:
    """Check everything in the folder, and write down what came of it.

    Raises:
        NoArchiveError: see there.
    """
    try:
        evidence = evidences.load(folder.joinpath(_EVIDENCE).read_text(encoding="utf-8"))
        record = _record(json.loads(folder.joinpath(_RIG).read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError) as reason:
        raise NoArchiveError(f"{folder} is no archive of a rig: {reason}") from reason
    histories = gathering.read_lines(folder, "history")
    figures = count(evidence, histories, record.faults)
    count_logs(figures, folder)
    figures.worst_takeover_s = record.worst_takeover_s
    figures.takeovers = record.takeovers
    figures.notifications_lost = record.notifications_lost
    figures.excused = len(expectations.excused(evidence))
    unlike = [
        Violation(invariant="S6", run_id=run_id, seq=seq, what="two subscribers got it differently")
        for run_id, seq in gathering.checksums_differ(histories)
    ]
    broken = [
        Violation(invariant="RIG", what=f"{each['proc']} broke: {each['result']['error']}")
        for each in histories
        if each["op"] == "Broken"
    ]
    violations = [
        *broken,
        *record.found,
        *check(evidence),
        *unlike,
        *expectations.unexpected(evidence, make_book(record.seed)),
        *vacuities(figures, record.floors, [Kind(kind) for kind in record.kinds]),
    ]
    verdict = Verdict(figures, violations)
    folder.joinpath(_REPORT).write_text(verdict.text, encoding="utf-8")
    return verdict


def _record(document: dict[str, Any]) -> RigRecord:
    faults = [
        DoneFault(
            **{
                **each,
                "planned": PlannedFault(
                    **{**each["planned"], "kind": Kind(each["planned"]["kind"])}
                ),
            }
        )
        for each in document["faults"]
    ]
    found = [Violation(**each) for each in document["found"]]
    floors = Floors(**document["floors"])
    return RigRecord(**{**document, "faults": faults, "found": found, "floors": floors})
