"""What a run is waiting to be told: the question of its own gate, or of a child run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkon_client.cli.telling import printable
from runkon_client.values import CustomGate, HumanApproval, HumanReview, PrApproval, PrChecks

if TYPE_CHECKING:
    from runkon_client.cli.session import Settings
    from runkon_client.values import BlockedOn, Gate, GateOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A gate that is open, as far as it takes to answer it."""

    gate_id: str
    name: str
    prompt: str
    options: tuple[GateOption, ...] = ()
    child_run_id: str = ""
    """The child run that it belongs to; empty for a gate of the run itself."""

    def heading(self) -> str:
        """Who asks what."""
        whose = f"of child run {self.child_run_id} " if self.child_run_id else ""
        return f"Gate {printable(self.name)} {whose}".rstrip() + f": {self.words()}"

    def words(self) -> str:
        """What is asked."""
        return printable(self.prompt) or "Approve?"

    def choices(self) -> list[str]:
        """One line per option that may be selected."""
        width = max((len(option.key) for option in self.options), default=0)
        return [printable(f"{option.key:<{width}}  {option.label}") for option in self.options]

    def answers(self, settings: Settings) -> list[str]:
        """The command lines that approve and reject."""
        select = ["--select", self.options[0].key] if self.options else []
        return [
            settings.command("gates", "approve", self.gate_id, *select),
            settings.command("gates", "reject", self.gate_id, "--feedback", "why"),
        ]


def question_of(gate: Gate) -> Question:
    """The question of a gate of the run itself."""
    return Question(gate_id=gate.id, name=gate.name, prompt=gate.prompt, options=gate.options)


def question_of_child(blocked_on: BlockedOn | None, run_id: str) -> Question | None:
    """The question of a gate below the run of that id; None if it waits for none."""
    if blocked_on is None or blocked_on.run_id in ("", run_id):
        return None
    match blocked_on:
        case HumanApproval() | HumanReview() | CustomGate():
            name, prompt, options = blocked_on.gate_name, blocked_on.prompt, blocked_on.options
        case PrApproval():
            name, options = blocked_on.gate_name, ()
            prompt = f"{blocked_on.approvals_needed} approvals of the pull request are needed"
        case PrChecks():
            name, prompt, options = blocked_on.gate_name, "the checks have to succeed", ()
        case _:
            name, prompt, options = "of an unknown kind", "", ()
    return Question(
        gate_id=blocked_on.gate_id,
        name=name,
        prompt=prompt,
        options=options,
        child_run_id=blocked_on.run_id,
    )
