"""`runkon-server` from outside: help, wrong usage, and what it says when it cannot start."""

from __future__ import annotations

import logging
import socket
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner

from runkon_server.cli import main
from support.logs import log_past_the_tests
from support.servers import runkon_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

NOWHERE = "postgresql://runkon:geheim@127.0.0.1:1/runkon"


def outcome(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the program."""
    with runkon_server(arguments, environment) as server:
        code = server.ended()
        lines = [*server.said, *(str(record) for record in server.log)]
        return code, "\n".join(server.printed), "\n".join(lines)


@pytest.fixture
def run() -> Iterator[Run]:
    """The same within this process, which is quicker; leaves logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def invoke(*arguments: str, **environment: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, arguments, env=environment)
        return result.exit_code, result.stdout, result.stderr

    yield invoke
    root.handlers[:] = handlers
    root.setLevel(level)
    log_past_the_tests()


def test_help_names_commands_and_exit_codes() -> None:
    """What there is, and how it ends."""
    code, printed, _ = outcome("--help")

    assert code == 0
    for word in ("serve", "dev", "migrate", "health", "version", "Exit codes", "RUNKON_"):
        assert word in printed


@pytest.mark.parametrize("command", ["serve", "dev", "migrate", "health", "version"])
def test_every_command_has_help(run: Run, command: str) -> None:
    """Which needs no database."""
    code, printed, _ = run(command, "--help")

    assert code == 0
    assert "Usage:" in printed


def test_version_is_that_of_the_distribution() -> None:
    """One line."""
    code, printed, _ = outcome("version")

    assert (code, printed) == (0, "runkon 0.1.0")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_missing_database_is_named_with_its_variable(command: str) -> None:
    """Usage error, with the environment variable that would do."""
    code, _, said = outcome(command)

    assert code == 2
    assert "--database-url" in said
    assert "RUNKON_DATABASE_URL" in said


@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:7411", "unix:", ":7411"],
)
def test_a_bad_address_is_refused(run: Run, address: str) -> None:
    """Usage error naming it, before the database is asked for anything."""
    code, _, said = run("serve", "--listen", address, RUNKON_DATABASE_URL=NOWHERE)

    assert code == 2
    assert "Invalid value" in said


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_reach_needs_a_word(run: Run, address: str) -> None:
    """Without --insecure it is refused, with the ways out."""
    code, _, said = run("serve", "--listen", address, RUNKON_DATABASE_URL=NOWHERE)

    assert code == 2
    assert "--insecure" in said
    assert "127.0.0.1" in said


def test_what_is_no_database_url_is_refused() -> None:
    """With an example, and without the text, which may hold a password."""
    code, _, said = outcome("serve", "--database-url", "geheim")

    assert code == 1
    assert "postgresql://USER:PASSWORD@HOST/NAME" in said
    assert "geheim" not in said


@pytest.mark.parametrize("option", ["--database-url", "--database-direct-url"])
def test_a_password_with_an_at_sign_is_not_taken_for_a_host(run: Run, option: str) -> None:
    """Half of it would be looked up as a name, and logged as one that is not found."""
    words = ["serve", "--database-url", NOWHERE, option, "postgresql://u:ge@heim@127.0.0.1:1/db"]
    code, _, said = run(*words)

    assert code == 2
    assert "%40" in said
    assert "heim" not in said


@pytest.mark.parametrize("words", ["purge", "retention show", "limits show"])
def test_who_asks_a_database_that_is_away_is_told_at_once(run: Run, words: str) -> None:
    """A person waits there; only servers and migrations give the database time."""
    code, _, said = run(*words.split(), "--database-url", NOWHERE)

    assert code == 1
    assert said.startswith("Error: the database does not answer")
    assert "geheim" not in said


@pytest.mark.parametrize("url", ["mysql://u@h/db", "postgresql+asyncpg://u@h/db", "h/db"])
def test_the_url_of_another_database_is_no_url(run: Run, url: str) -> None:
    """It would be looked for a driver that is not there."""
    code, _, said = run("migrate", "--database-url", url)

    assert code == 1
    assert "it looks like postgresql://USER:PASSWORD@HOST/NAME" in said


def test_health_of_nobody_is_bad() -> None:
    """Exit code 1 and a reason."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, said = outcome("health", "--address", address, "--timeout", "0.5")

    assert code == 1
    assert "does not answer" in said


def test_a_folder_that_holds_something_else_is_no_data_dir(tmp_path: Path) -> None:
    """`dev` says so and touches nothing."""
    (tmp_path / "thesis.txt").write_text("years of work")

    code, _, said = outcome("dev", "--data-dir", str(tmp_path), "--port", "0")

    assert code == 1
    assert "holds something else" in said
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("migrate", "schema public"),
        ("purge", "table runkon_schema_version"),
        ("retention set 2w", "table retention"),
    ],
)
def test_what_a_role_may_not_do_is_told_in_a_line(
    run: Run, database: str, empty_database: str, words: str, refused: str
) -> None:
    """By the first statement or by a later one; it was a traceback."""
    dsn = empty_database if words == "migrate" else database
    role = f"stranger_{uuid.uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'".encode())
        if words.startswith("retention"):
            conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
        try:
            code, _, said = run(*words.split(), "--database-url", _as_role(dsn, role))
        finally:
            conn.execute(f"DROP OWNED BY {role}".encode())
            conn.execute(f"DROP ROLE {role}".encode())

    assert code == 1
    assert said.startswith(f"Error: the database refuses: permission denied for {refused}; `deploy")


def _as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{host}"))
