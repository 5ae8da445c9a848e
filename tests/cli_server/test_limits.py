"""`runkon-server limits` on a database of its own."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from runkon_server.cli.limits import limits


def said(database: str, *words: str, fails: bool = False) -> str:
    """What the command prints."""
    answer = CliRunner().invoke(limits, [*words, "--database-url", database])
    assert (answer.exit_code != 0) == fails, answer.output
    return answer.output


def test_limits_are_set_shown_and_removed(database: str) -> None:
    assert said(database, "show") == ""
    said(database, "set", "deploy", "--concurrency", "2")
    said(database, "set", "mail", "--rate", "0.5", "--namespace", "shop")
    said(database, "set", "deploy", "--concurrency", "1", "--rate", "10", "--namespace", "")

    assert said(database, "show").splitlines() == [
        "default  deploy  1 at once, 10 per second",
        "shop  mail  0.5 per second",
    ]
    said(database, "unset", "deploy")
    assert said(database, "show") == "shop  mail  0.5 per second\n"


def test_a_limit_that_limits_nothing_is_refused(database: str) -> None:
    assert "--concurrency" in said(database, "set", "deploy", fails=True)
    assert "0" in said(database, "set", "deploy", "--rate", "0", fails=True)


@pytest.mark.parametrize(
    "words",
    [("--rate", "nan"), ("--rate", "inf"), ("--rate", "1e7"), ("--concurrency", "3000000000")],
)
def test_a_limit_that_is_no_limit_is_refused(database: str, words: tuple[str, str]) -> None:
    assert "is at most 1,000,000" in said(database, "set", "deploy", *words, fails=True)
    assert said(database, "show") == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("", "--concurrency", "1"), "required"),
        (("de\x1bploy", "--concurrency", "1"), "control characters"),
        (("deploy", "--concurrency", "1", "--namespace", "Our Shop"), "must be 1 to 63"),
    ],
)
def test_a_limit_that_no_task_can_meet_is_refused(
    database: str, words: tuple[str, ...], problem: str
) -> None:
    """As the RPC refuses it: what is stored under such names would never hold."""
    assert problem in said(database, "set", *words, fails=True)
    assert said(database, "show") == ""
