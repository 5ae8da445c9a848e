"""Exit codes, the same for every command, and the paragraph of each help that lists them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    RUN_CANCELLED = 3
    REFUSED = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130
    UNREAD = 141
    """As of a program that SIGPIPE ends: `head` had enough."""


_MEANINGS: Final = {
    Exit.OK: "done",
    Exit.FAILED: "problems were found",
    Exit.USAGE: "wrong usage",
    Exit.RUN_CANCELLED: "the run was cancelled",
    Exit.REFUSED: "not found, or refused by the server",
    Exit.UNAVAILABLE: "no server answered",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
    Exit.UNREAD: "nobody read the rest of the output",
}

_ALWAYS: Final = (Exit.OK, Exit.USAGE, Exit.REFUSED, Exit.UNAVAILABLE, Exit.INTERRUPTED)


def explain(**other: str) -> str:
    """The exit codes of a command, for its help.

    Args:
        other: what a code means here, by its name in lower case; adds codes, or says it better.
    """
    said = {code: _MEANINGS[code] for code in _ALWAYS}
    said |= {Exit[name.upper()]: meaning for name, meaning in other.items()}
    listed = ", ".join(f"{code.value} {meaning}" for code, meaning in sorted(said.items()))
    return f"Exit codes: {listed}."


WATCHED_RUN: Final = explain(
    ok="the run completed, or was only started",
    failed="the run failed",
    run_cancelled="the run was cancelled",
    interrupted="interrupted (Ctrl-C): the run goes on",
)
