"""Options that are accepted and change nothing."""

from __future__ import annotations

import pytest

from runkon_server.dsl.check import check
from support.workflows import accepted

EACH = "foreach f { over = a max_parallel = 1 workflow = c "


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("call x { retry_delay = 5 }", "retry_delay"),
        ("call x { retry_delay = 5 retries = 1 }", None),
        ("call workflow c { retry_delay = 5 }", "retry_delay"),
        ("script s { run = x retry_delay = 5 }", "retry_delay"),
        ("parallel { call x { retry_delay = 5 retries = 0 } }", "retry_delay"),
        ("parallel { call x { retry_delay = 5 retries = 1 } }", None),
        (EACH + "on_cycle = warn }", "on_cycle"),
        (EACH + "on_cycle = warn ordered = true }", None),
        (EACH + "on_cycle = fail }", None),
        ("do { max_iterations = 2 stuck_after = 3 call x } while x.m", "stuck_after"),
        ("do { max_iterations = 3 stuck_after = 3 call x } while x.m", None),
        ("call x while x.m { max_iterations = 2 stuck_after = 3 call x }", "stuck_after"),
        ("do { output = s gate human_review { } }", "output"),
        ("do { with = s call workflow c }", "with"),
        ("do { output = s do { call x } }", None),
        ("do { with = s parallel { call x } }", None),
    ],
)
def test_an_option_that_changes_nothing_is_told(text: str, option: str | None) -> None:
    problems = check(accepted(text))
    expected = [] if option is None else [("WF565", f"`{option}` has no effect here")]

    assert [(each.code, each.message.partition(":")[0]) for each in problems] == expected


def test_every_option_of_a_block_is_told() -> None:
    problems = check(accepted("do { output = s with = [a] }"))

    assert [each.message.split()[0] for each in problems] == ["`output`", "`with`"]
