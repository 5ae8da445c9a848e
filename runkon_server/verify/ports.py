"""Ports of 127.0.0.1 for servers that start later than their address is told, or many times."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port that no one else is given as long as the context lasts; whoever names it may listen.

    A port that was only found free may be gone when its server starts: as that of another server
    that took any, or of somebody's outgoing connection. Bound, but deaf, it is neither, and
    connections to it are refused. Elsewhere than on Linux it can only be found free.

    Source: socket(7), SO_REUSEADDR: a bind fails only where a socket listens. Servers set it.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        port: int = keeper.getsockname()[1]
        if sys.platform != "linux":
            keeper.close()
        yield port
