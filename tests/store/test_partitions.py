"""Monthly partitions of the event log."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from runkon_server.runtime.ambient import encode_ulid
from runkon_server.store.migrations import upgrade
from runkon_server.store.partitions import MONTHS_AHEAD, ensure_partitions, months, ulid_floor


def test_months_follow_each_other_without_a_gap() -> None:
    """Also over the end of a year."""
    made = list(months(datetime(2026, 11, 23, 5, tzinfo=UTC), 3))

    assert [name for name, _, _ in made] == [
        "run_events_y2026m11",
        "run_events_y2026m12",
        "run_events_y2027m01",
        "run_events_y2027m02",
    ]
    assert [upper for _, _, upper in made[:-1]] == [lower for _, lower, _ in made[1:]]


def test_a_bound_sorts_before_every_ulid_of_its_instant() -> None:
    """And after every one of the millisecond before."""
    at = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)

    assert ulid_floor(at) <= encode_ulid(at, 0)
    assert encode_ulid(at - 1, (1 << 80) - 1) < ulid_floor(at)


def test_migrating_makes_the_partitions_once(empty_database: str) -> None:
    """A second call finds them."""
    upgrade(empty_database)

    assert ensure_partitions(empty_database) == 0
    with psycopg.connect(empty_database) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run_events'::regclass"
        ).fetchone()
    assert row == (MONTHS_AHEAD + 2,)


def test_a_month_with_rows_in_the_default_partition_stays_there(empty_database: str) -> None:
    """Making its partition would have to move them; nothing fails."""
    upgrade(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        name, lower, _ = next(months(row[0], 0))
        conn.execute(f"DROP TABLE {name}")
        conn.execute(
            "INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload)"
            " VALUES (%s, 1, 1, 'run_started', now(), 1, '{}')",
            (lower + "Z" * 16,),
        )

    assert ensure_partitions(empty_database) == 0
