"""The schema's steps: again, at once, beside users of the tables, and up to the head."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from runkon_server.store import migrations
from runkon_server.store.migrations import (
    Schema,
    current_revision,
    head_revision,
    present_schema,
    upgrade,
)

if TYPE_CHECKING:
    import pytest

FIRST_ROLLING = "0006"
"""Steps up to this one were made before anything was released."""
TAKES_AWAY = re.compile(r"\b(DROP (TABLE|COLUMN)|RENAME|SET NOT NULL|ALTER COLUMN \w+ TYPE)\b")


def test_an_empty_database_is_brought_to_the_head(empty_database: str) -> None:
    assert current_revision(empty_database) is None

    upgrade(empty_database)
    upgrade(empty_database)

    assert current_revision(empty_database) == head_revision()


def test_two_may_migrate_at_once(empty_database: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(upgrade, [empty_database] * 2))

    assert current_revision(empty_database) == head_revision()


def test_the_template_is_at_the_head(database: str) -> None:
    assert current_revision(database) == head_revision()


def test_the_database_says_which_releases_may_work_on_it(database: str) -> None:
    present = present_schema(database)

    assert present.is_usable
    assert present.oldest_compatible is not None
    assert present.oldest_compatible <= head_revision()


def test_a_newer_schema_is_usable_if_it_says_so() -> None:
    head = head_revision()

    assert Schema("9999", head).is_usable
    assert not Schema("9999", "9998").is_usable
    assert not Schema("9999", None).is_usable
    assert not Schema("0001", None).is_usable
    assert not Schema(None, None).is_usable


def test_a_step_that_takes_something_away_says_which_releases_it_leaves_behind() -> None:
    """Every step from the first release on, by its text."""
    folder = Path(migrations.__file__).parent / "versions"
    steps = [path for path in folder.glob("[0-9]*.py") if path.name[:4] > FIRST_ROLLING]
    silent = [
        path.name
        for path in steps
        if TAKES_AWAY.search(path.read_text()) and "compatible_from(" not in path.read_text()
    ]

    assert silent == []


def test_a_step_does_not_queue_for_ever_before_those_who_use_the_table(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits briefly, lets others pass, and gets its turn when the table is free."""
    monkeypatch.setattr(migrations, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.01)
    upgrade(empty_database, "0002")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(empty_database) as user:
        user.execute("LOCK TABLE workflow_runs IN ROW EXCLUSIVE MODE")
        migrating = pool.submit(upgrade, empty_database)
        with psycopg.connect(empty_database) as other:
            # Waits behind the step while that waits, and passes when it gives up.
            other.execute("INSERT INTO settings (name, value) VALUES ('a', 'b')")
            other.execute("LOCK TABLE workflow_runs IN ROW EXCLUSIVE MODE")
        assert not migrating.done()
        user.rollback()
        migrating.result(60)

    assert current_revision(empty_database) == head_revision()
