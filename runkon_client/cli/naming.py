"""How runs are named on the command line: by their id, or by the key they were started with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from runkon_client import SyncClient, SyncRunHandle
    from runkon_client.values import Run, Step, StepRole

_PART_OF_RUN: Final = "/"
"""In the id of a step, behind that of its run."""
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def is_run_id(text: str) -> bool:
    """Whether the text has the form of a run's id."""
    return _ULID.fullmatch(text) is not None


def find_run(client: SyncClient, run: str, *, full: bool = False) -> Run:
    """The run of that id or, if the text is no id, of that key.

    Raises:
        click.UsageError: the text is empty, as a variable of a shell that was never set.
    """
    if not run:
        raise click.UsageError("RUN is empty: a run is named by its id or its key")
    if is_run_id(run):
        return client.get_run(run, full=full)
    return client.get_run(key=run, full=full)


def find_run_id(client: SyncClient, run: str) -> str:
    """The id of that run; an id is not looked up."""
    return run if is_run_id(run) else find_run(client, run).id


def find_step(run: SyncRunHandle, step: str, role: StepRole | None = None) -> Step:
    """The step of that id or name; without either, the only one of its role.

    Of several steps of one name the first is meant, or with a role the newest.

    Raises:
        click.UsageError: there is none, or nothing says which of several.
    """
    if _PART_OF_RUN in step:
        return run.get_step(step)
    found = [
        each
        for each in run.steps()
        if (not step or each.step_name == step) and (role is None or each.role is role)
    ]
    kind = "step" if role is None else role.value
    if not found:
        raise click.UsageError(f"run {run.id} has no {kind}" + (f" {step!r}" if step else ""))
    names = {each.step_name for each in found}
    if len(names) > 1:
        raise click.UsageError(f"say which {kind} is meant: {', '.join(sorted(names))}")
    return found[0] if role is None else found[-1]
