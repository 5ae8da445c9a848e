"""The schema's steps: again, at once, and up to the head."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from runkon_server.store.migrations import current_revision, head_revision, upgrade


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
