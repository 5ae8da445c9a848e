"""Where the records of servers go that run in the tests' own process."""

from __future__ import annotations

import sys

import structlog


def log_past_the_tests() -> None:
    """Send every record to the process' standard error, as pytest captures it.

    structlog prints to `sys.stdout`, which tests of commands replace: what a thread of some replica
    had to say in that moment stood in the output of a command.
    """
    structlog.reset_defaults()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
