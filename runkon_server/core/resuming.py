"""Taking a finished run up again: what may be asked, and why it may be refused."""

from __future__ import annotations

from enum import StrEnum


class ResumeMode(StrEnum):
    """What a resume repeats."""

    NORMAL = "normal"
    """The steps whose failure failed the run, and the always section."""
    FROM_STEP = "from_step"
    """The same, and every step from one on."""
    RESTART = "restart"
    """Everything."""


class ResumeRefusal(StrEnum):
    """Why a run cannot be resumed as asked."""

    LIVE = "live"
    """It has not ended."""
    CANCELLED = "cancelled"
    """Which is final."""
    COMPLETED = "completed"
    """Only a restart takes a completed run up again."""
    NOTHING_TO_REPEAT = "nothing_to_repeat"
    """No step failed it but a loop's limit or a quality gate, which would fail it again."""
    UNKNOWN_STEP = "unknown_step"
    """The run has no such step."""
    SUPERSEDED_STEP = "superseded_step"
    """An earlier resume replaced the step."""


class ResumeRefusedError(ValueError):
    """A run cannot be resumed as asked; the message says which mode would do, if any does."""

    def __init__(self, refusal: ResumeRefusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
