"""Monthly partitions of the event log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

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


def test_what_operators_are_told_gives_the_room_of_an_empty_month_back(empty_database: str) -> None:
    """The statements of docs/operating.md: ten thousand events, and then none."""
    upgrade(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        name, lower, _ = next(months(row[0], 0))
        conn.execute(
            "INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload)"
            " SELECT %s::text || lpad(n::text, 16, '0'), 1, 1, 'gate_opened', now(), 1, '{}'"
            " FROM generate_series(1, 10000) n",
            (lower,),
        )
        full = _bytes_of(conn, name)
        conn.execute(f"DELETE FROM {name}")
        for statement in _told("run_events_y2026m01"):
            conn.execute(statement.replace("run_events_y2026m01", name).encode())

        assert full > 1024 * 1024
        assert _bytes_of(conn, name) < 128 * 1024


def _told(table: str) -> list[str]:
    """The statements about such a partition that the manual has."""
    manual = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")
    return [line.strip() for line in manual.splitlines() if line.endswith(f" {table};")]


def _bytes_of(conn: psycopg.Connection[Any], table: str) -> int:
    row = conn.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
    assert row is not None
    size: int = row[0]
    return size


def test_a_long_reader_keeps_a_partition_from_being_made_and_nobody_from_writing(
    empty_database: str,
) -> None:
    """A backup reads all tables for an hour: who waits for it must not have commits wait behind."""
    upgrade(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        name, _, _ = list(months(row[0], 1))[-1]
        conn.execute(f"DROP TABLE {name}")
    with (
        psycopg.connect(empty_database) as backup,
        psycopg.connect(empty_database, autocommit=True) as writer,
        ThreadPoolExecutor(1) as executor,
    ):
        backup.execute("SELECT count(*) FROM run_events")
        making = executor.submit(ensure_partitions, empty_database)
        try:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                making.result(timeout=20)
            writer.execute("SET lock_timeout = '1s'")
            writer.execute(
                "INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload)"
                " VALUES (%s, 1, 1, 'run_started', now(), 1, '{}')",
                (ulid_floor(0) + "Z" * 16,),
            )
        finally:
            backup.rollback()

    assert ensure_partitions(empty_database) == 1
