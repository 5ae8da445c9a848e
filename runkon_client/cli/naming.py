"""How runs are named on the command line: by their id, or by the key they were started with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runkon_client import SyncClient
    from runkon_client.values import Run

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def is_run_id(text: str) -> bool:
    """Whether the text has the form of a run's id."""
    return _ULID.fullmatch(text) is not None


def find_run(client: SyncClient, run: str, *, full: bool = False) -> Run:
    """The run of that id or, if the text is no id, of that key."""
    if is_run_id(run):
        return client.get_run(run, full=full)
    return client.get_run(key=run, full=full)


def find_run_id(client: SyncClient, run: str) -> str:
    """The id of that run; an id is not looked up."""
    return run if is_run_id(run) else find_run(client, run).id
