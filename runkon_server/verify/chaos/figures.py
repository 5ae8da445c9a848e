"""Numbers of a rig's run: what people read, and what must not be too small to mean anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runkon_server.verify.chaos.cluster import records
from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from runkon_server.verify.chaos.nemesis import DoneFault
    from runkon_server.verify.chaos.schedule import Kind
    from runkon_server.verify.evidence import Evidence

OK_RATIO_MIN: Final = 0.6
WRONG_WAYS: Final = frozenset({"twice", "forged", "foreign", "late"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What has to occur so often; a run without it has shown nothing."""

    ok_ratio: float = OK_RATIO_MIN
    steals: int = 5
    reconnects: int = 10
    late_reports: int = 1


@dataclass(slots=True)
class Figures:
    """What happened. Everything is a count unless its name says otherwise."""

    runs: int = 0
    events: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    """By outcome: ok, fail, info."""
    faults: Counter[str] = field(default_factory=Counter)
    """Done, by kind."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Planned and not done, by kind."""
    commits: Counter[str] = field(default_factory=Counter)
    """Whose answer was lost, by what had become of them."""
    steals: int = 0
    takeovers: int = 0
    worst_takeover_s: float = 0.0
    reports: Counter[str] = field(default_factory=Counter)
    """Of the worker that breaks the rules: how, and what it was answered."""
    late_reports: int = 0
    reconnects: int = 0
    notifications_lost: int = 0
    effects: int = 0
    excused: int = 0
    """Runs whose end a fault decided: a worker lost too often."""

    @property
    def ok_ratio(self) -> float:
        """Share of the calls with a known outcome among those with any."""
        asked = self.calls["ok"] + self.calls["info"]
        return self.calls["ok"] / asked if asked else 0.0


def count(
    evidence: Evidence, histories: Iterable[dict[str, Any]], faults: Sequence[DoneFault]
) -> Figures:
    """The figures that evidence and histories hold; those of logs are added by `count_logs`."""
    figures = Figures(runs=len(evidence.runs), effects=len(evidence.effects))
    for run in evidence.runs.values():
        figures.events += len(run.events)
        figures.statuses[str(run.row["status"])] += 1
    for operation in evidence.operations:
        if operation.kind == "invoke":
            continue
        if operation.op != "ReportTask":
            figures.calls[operation.kind] += 1
            continue
        way, status = str(operation.args.get("way")), str(operation.result.get("status"))
        figures.reports[f"{way}: {status}"] += 1
        figures.late_reports += way == "late" and status == "stale"
    for record in histories:
        if record["op"] == "StreamEnded":
            figures.reconnects += int(record["result"]["disconnects"])
        elif record["op"] == "StreamFailed":
            figures.reconnects += 1
    for fault in faults:
        (figures.skipped if fault.skipped else figures.faults)[str(fault.planned.kind)] += 1
    return figures


def count_logs(figures: Figures, folder: Path) -> None:
    """Add what replicas and workers said in their logs."""
    for log in folder.glob("replica-*.log"):
        for event in ("lease.stolen", "lease.inherited"):
            for record in records(log, event):
                figures.steals += int(str(record["runs"]))
        for record in records(log, "commit.resolved"):
            figures.commits[str(record["fate"])] += 1
    for log in folder.glob("worker-*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        figures.late_reports += text.count(" dropped: ")
        figures.reconnects += text.count("worker stream ended") + text.count("stream given up")


def vacuities(figures: Figures, floors: Floors, kinds: Iterable[Kind]) -> Iterator[Violation]:
    """What occurred too rarely for the run to mean anything."""
    amounts: dict[str, tuple[float, float]] = {
        "share of calls with an answer": (figures.ok_ratio, floors.ok_ratio),
        "runs stolen": (figures.steals, floors.steals),
        "reconnects": (figures.reconnects, floors.reconnects),
        "late reports": (figures.late_reports, floors.late_reports),
    }
    for what, (found, floor) in amounts.items():
        if found < floor:
            yield Violation(invariant="L8", what=f"{what}: {found:.3g}, wanted at least {floor}")
    for kind in kinds:
        if figures.faults[str(kind)] == 0:
            yield Violation(invariant="L8", what=f"this fault was never done: {kind}")
    if floors.late_reports:
        ways = {key.partition(":")[0] for key in figures.reports}
        for way in sorted(WRONG_WAYS - ways):
            yield Violation(invariant="L8", what=f"no worker reported in this way: {way}")


def as_text(figures: Figures) -> str:
    """The figures for people."""
    lines = [
        ("runs", f"{figures.runs}: {_counts(figures.statuses)}"),
        ("events", str(figures.events)),
        ("effects", str(figures.effects)),
        ("calls", f"{_counts(figures.calls)}; {figures.ok_ratio:.0%} with an answer"),
        ("reports by a rogue", _counts(figures.reports)),
        ("late reports refused", str(figures.late_reports)),
        ("reconnects", str(figures.reconnects)),
        ("lost answers to COMMIT", _counts(figures.commits)),
        ("notifications lost", str(figures.notifications_lost)),
        ("runs stolen", str(figures.steals)),
        ("worst takeover", f"{figures.worst_takeover_s:.2f} s of {figures.takeovers} runs"),
        ("faults", f"{figures.faults.total()} done, {figures.skipped.total()} skipped"),
    ]
    if figures.excused:
        lines.append(("excused", f"{figures.excused} runs lost a worker too often"))
    text = "".join(f"  {name:<24}{value}\n" for name, value in lines)
    for kind, times in sorted(figures.faults.items()):
        text += f"    {kind:<29}{times:3}\n"
    return text


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{times} {name}" for name, times in sorted(counter.items())) or "none"
