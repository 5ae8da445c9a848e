"""Signals that come before the server's event loop can hear them."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """End the process with 0 on SIGTERM or SIGINT, wherever in the block it is.

    What the block has open is closed in order. Without this a first process of a container, for
    which signals have no default, would not hear of them at all.
    """
    before = [(number, signal.signal(number, _end)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> NoReturn:
    import structlog

    structlog.get_logger(__name__).info("server.stopping", signal=signal.Signals(number).name)
    raise SystemExit(0)
