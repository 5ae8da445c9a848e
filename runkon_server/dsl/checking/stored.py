"""Why a workflow that a server should have cannot be looked at: the same words at every place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runkon_server.dsl.snapshot import SnapshotError

NOT_STORED: Final = "the server stores no workflow of that name"


def unreadable(error: SnapshotError) -> str:
    """Why a stored definition cannot be used: a newer server wrote it, or it is damaged."""
    return f"the server's version cannot be read: {error}"
