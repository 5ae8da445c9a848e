"""`runkon-server retention` and `purge` on a database of their own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from runkon_server.cli.retention import purge, retention
from support.rows import add_run, engine_of, ulid

if TYPE_CHECKING:
    import click


NOWHERE = "postgresql://127.0.0.1:1/runkon"


def said(command: click.Command, database: str, *arguments: str) -> str:
    """What the command printed."""
    environment = {"RUNKON_DATABASE_URL": database}
    result = CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_set_is_shown_and_unset(database: str) -> None:
    assert said(retention, database, "show") == "(default)  kept for 30 days\n"
    said(retention, database, "set", "2w")
    said(retention, database, "set", "forever", "--namespace", "archive")
    said(retention, database, "set", "12h", "--namespace", "brief")

    assert said(retention, database, "show").splitlines() == [
        "(default)  kept for 14 days",
        "archive  kept for ever",
        "brief  kept for 12 hours",
    ]
    assert said(retention, database, "unset", "--namespace", "archive") == (
        "archive  kept for 14 days\n"
    )
    assert said(retention, database, "unset") == "(default)  kept for 30 days\n"


def test_a_purge_removes_what_a_dry_run_counted(database: str) -> None:
    """By the retention, or by an age that is given; other namespaces keep theirs."""

    async def fill() -> None:
        now = datetime.now(UTC)
        async with engine_of(database) as engine, engine.connect() as conn:
            for number, days in enumerate((1, 10, 40)):
                at = now - timedelta(days=days)
                await add_run(conn, ulid(number), status="completed", ended_at=at)
            at = now - timedelta(days=40)
            await add_run(conn, ulid(9), namespace="other", status="failed", ended_at=at)

    asyncio.run(fill())

    assert said(purge, database, "--dry-run") == "2 root runs would be removed\n"
    assert said(purge, database, "--namespace", "default") == "1 runs removed\n"
    assert said(purge, database, "--older-than", "7d", "--dry-run").startswith("2 ")
    assert said(purge, database, "--older-than", "7d") == "2 runs removed\n"
    assert said(purge, database) == "0 runs removed\n"


@pytest.mark.parametrize("span", ["30", "d", "-1d", "1y", ""])
def test_what_is_no_span_is_refused(database: str, span: str) -> None:
    result = CliRunner().invoke(
        retention, ["set", "--", span], env={"RUNKON_DATABASE_URL": database}
    )

    assert result.exit_code == 2
    assert "is no span such as 30d" in result.output


@pytest.mark.parametrize(
    ("command", "words"),
    [(retention, ["set", "1d"]), (retention, ["unset"]), (purge, ["--dry-run"])],
)
def test_what_is_no_namespace_is_refused(command: click.Command, words: list[str]) -> None:
    """Before the database is asked: it would keep a word that never holds."""
    result = CliRunner().invoke(
        command, [*words, "--namespace", "Team A"], env={"RUNKON_DATABASE_URL": NOWHERE}
    )

    assert result.exit_code == 2
    assert "a-z 0-9" in result.output
