"""Monthly partitions of `run_events`, by the time inside the run's id.

A run's events never move: its id does not change. What retention removes, it removes as rows, and
old months stay when they are empty (ADR-0019). Partitions are made ahead of time; should none have
been made, the default partition takes the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from runkon_server.store.session_settings import schema_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

log = structlog.get_logger(__name__)

MONTHS_AHEAD: Final = 3
PARTITION_LOCK: Final = 727_002
LOCK_WAIT_MS: Final = 500
"""A new partition needs `run_events` for itself: while it waits for one long reader, a backup say,
every commit waits behind it. Shorter than the committer waits for a lock."""
SCAN_MS: Final = 4_000
"""Nor may the rows of the default partition, which are all looked at, keep it for longer."""
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_CHARACTERS: Final = 10
"""Characters of a ULID that hold its milliseconds."""


def ulid_floor(milliseconds: int) -> str:
    """The smallest text that sorts at or before every ULID of this instant or later."""
    digits = []
    for _ in range(_TIME_CHARACTERS):
        digits.append(_CROCKFORD[milliseconds & 31])
        milliseconds >>= 5
    return "".join(reversed(digits))


def months(now: datetime, ahead: int) -> Iterator[tuple[str, str, str]]:
    """Name and bounds of the partitions from the month of `now` on (UTC)."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(ahead + 1):
        year, month = divmod(first.year * 12 + first.month, 12)
        following = first.replace(year=year, month=month + 1)
        lower, upper = (ulid_floor(int(at.timestamp() * 1000)) for at in (first, following))
        yield f"run_events_y{first.year}m{first.month:02d}", lower, upper
        first = following


def ensure_partitions(dsn: str) -> int:
    """Make the partitions of this month and the next ones; gives how many are new.

    Several replicas may ask at once. A month whose rows are in the default partition already is
    left there, and so are all if there are too many rows to look at.

    Raises:
        psycopg.errors.LockNotAvailable: somebody reads or writes events for long; ask again later.
        psycopg.Error: the database does not answer, or does not let this role make tables.
    """
    made = 0
    options = f"{schema_options(dsn)} -c timezone=UTC"
    with psycopg.connect(dsn, autocommit=True, options=options) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (PARTITION_LOCK,))
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        conn.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
        conn.execute(f"SET statement_timeout = {SCAN_MS}")
        for name, lower, upper in months(row[0], MONTHS_AHEAD):
            found = conn.execute("SELECT to_regclass(%s)", (name,)).fetchone()
            if found is not None and found[0] is not None:
                continue
            try:
                conn.execute(
                    f"CREATE TABLE {name} PARTITION OF run_events"
                    f" FOR VALUES FROM ('{lower}') TO ('{upper}')"
                )
            except psycopg.errors.CheckViolation:
                log.warning("partition.rows_in_default", partition=name)
            except psycopg.errors.QueryCanceled:
                log.warning("partition.default_too_large", partition=name)
                break
            else:
                made += 1
    return made
