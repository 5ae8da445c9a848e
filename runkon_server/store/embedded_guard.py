"""The guard of an embedded PostgreSQL: a program of its own, started by `embedded`, never imported.

    python -I embedded_guard.py PIPE_FD UID GID postgres -D ...

The owner keeps the other end of the pipe and never writes to it. However the owner ends, kill -9
included, the pipe closes, and the guard shuts the server down. The server's exit ends the guard.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

FAST_SHUTDOWN_S = 60


def main(arguments: list[str]) -> int:
    """Run the server until it ends or the owner does; returns the server's exit code."""
    pipe, uid, gid = map(int, arguments[:3])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler, because the server would inherit SIG_IGN and then not hear us.
        signal.signal(number, _disregard)
    if uid < 0:
        server = subprocess.Popen(arguments[3:], stdin=subprocess.DEVNULL)
    else:
        server = subprocess.Popen(
            arguments[3:], stdin=subprocess.DEVNULL, user=uid, group=gid, extra_groups=[]
        )
    threading.Thread(target=_stop_with_owner, args=(pipe, server), daemon=True).start()
    return server.wait()


def _disregard(_number: int, _frame: FrameType | None) -> None:
    """Outlive what was meant for the owner; the pipe says when it is over."""


def _stop_with_owner(pipe: int, server: subprocess.Popen[bytes]) -> None:
    while os.read(pipe, 1):
        pass
    server.send_signal(signal.SIGINT)
    try:
        server.wait(FAST_SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
