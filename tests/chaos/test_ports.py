"""A port that is kept: deaf until somebody listens there, and nobody's who asks for any."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from runkon_server.verify.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import Callable

RANGE = 51
"""IP_LOCAL_PORT_RANGE of Linux 6.3 and later, which Python does not name."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kept on Linux only")


def test_servers_follow_each_other_on_a_kept_port() -> None:
    """In between it refuses; the first server has closed a connection, which lingers."""
    with kept_port() as port:
        for _ in range(3):
            with socket.create_server(("127.0.0.1", port)) as server:
                caller = socket.create_connection(("127.0.0.1", port))
                server.accept()[0].close()
                caller.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("reuse", [0, 1])
@pytest.mark.parametrize("ask", [socket.socket.bind, socket.socket.connect])
def test_whoever_asks_for_any_port_gets_another(
    ask: Callable[[socket.socket, tuple[str, int]], None], reuse: int
) -> None:
    """Who may have this one only gets none."""
    with (
        kept_port() as port,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as other,
    ):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            other.setsockopt(socket.IPPROTO_IP, RANGE, struct.pack("=I", port << 16 | port))
        except OSError:
            pytest.skip("this kernel chooses from all ports")
        there = ("127.0.0.1", 0) if ask is socket.socket.bind else listener.getsockname()
        with pytest.raises(OSError, match=r"in use|Cannot assign"):
            ask(other, there)
