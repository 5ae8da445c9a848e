"""Exit codes of the commands on files."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import click


class Outcome(IntEnum):
    """What an exit code says."""

    CLEAN = 0
    FOUND = 1
    UNREADABLE = 2


_CODES: Final = "Exit codes: 0 {clean}, 1 {found}, 2 wrong usage, or a file cannot be {used}"
_OF_THE_CLIENT: Final = "; with --server also 4 refused by the server, 5 no server answered"


def explain(*, clean: str, found: str, used: str = "read", server: bool = False) -> str:
    """The exit codes of a command, for its help.

    Args:
        server: whether it asks one, by way of the client.
    """
    text = _CODES.format(clean=clean, found=found, used=used)
    return f"{text}{_OF_THE_CLIENT if server else ''}."


def leave(*, found: bool, unreadable: bool) -> None:
    """End the command; what could not be read weighs more than what was found.

    Raises:
        click.exceptions.Exit: unless nothing was found and all could be read.
    """
    outcome = Outcome.FOUND if found else Outcome.CLEAN
    if unreadable:
        outcome = Outcome.UNREADABLE
    if outcome is not Outcome.CLEAN:
        raise click.exceptions.Exit(outcome)
