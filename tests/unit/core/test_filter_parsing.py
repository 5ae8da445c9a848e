"""The language of filters: what is understood, and what exactly is said of what is not."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.core.filter_narrowing import narrow
from runkon_server.core.filter_parsing import DEPTH_MAX, TERMS_MAX, parse_filter
from runkon_server.core.filters import (
    EVERYTHING,
    FIELDS,
    All,
    Any,
    Comparison,
    Filter,
    IsSet,
    LabelIs,
    Not,
    Relative,
    leaves,
)
from runkon_server.errors import FilterInvalidError

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", EVERYTHING),
        ("  ", EVERYTHING),
        ("status = waiting", Comparison("status", "=", "waiting")),
        ("status=WAITING", Comparison("status", "=", "waiting")),
        ("workflow = 'a b'", Comparison("workflow", "=", "a b")),
        (r'workflow = "a\"b\\"', Comparison("workflow", "=", 'a"b\\')),
        ("priority >= -3", Comparison("priority", ">=", -3)),
        ("dry_run = true", Comparison("dry_run", "=", True)),
        ('start_time > "2026-01-01T00:00:00Z"', Comparison("start_time", ">", NEW_YEAR)),
        ("start_time > 2026-01-01T01:00:00+01:00", Comparison("start_time", ">", NEW_YEAR)),
        ("start_time > 2026-01-01", Comparison("start_time", ">", NEW_YEAR)),
        ("end_time < now", Comparison("end_time", "<", Relative(timedelta(0)))),
        ("end_time < now-1h30m", Comparison("end_time", "<", Relative(timedelta(hours=-1.5)))),
        ("end_time < now+2d", Comparison("end_time", "<", Relative(timedelta(days=2)))),
        ("end_time:*", IsSet("end_time")),
        ("labels.team = core", LabelIs("team", "core")),
        ("labels.a.b/c-d != x", Not(LabelIs("a.b/c-d", "x"))),
        ('labels."team" = "core"', LabelIs("team", "core")),
        ("labels.team:*", LabelIs("team", None)),
        ("labels:team", LabelIs("team", None)),
        ("NOT key:*", Not(IsSet("key"))),
        ("-key:*", Not(IsSet("key"))),
        ("key:* AND (epoch>1)", All((IsSet("key"), Comparison("epoch", ">", 1)))),
        ("key:* OR (epoch>1)", Any((IsSet("key"), Comparison("epoch", ">", 1)))),
    ],
)
def test_a_filter_means_what_it_says(text: str, meaning: Filter) -> None:
    assert parse_filter(text) == meaning


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("stat = waiting", 1, "unknown field `stat`; did you mean `status`?"),
        ("status = waiting AND foo = 1", 22, "unknown field `foo`"),
        ("status = walking", 10, "`status` is one of pending, running"),
        ("status > waiting", 1, "`status` is a status: it takes `=` and `!=` only"),
        ("status", 7, "expected one of = != < <= > >= :; the filter ends here"),
        ("status =", 9, "expected a value for `status`; the filter ends here"),
        ("status = waiting AND", 21, "expected the name of a field; the filter ends here"),
        ("status = waiting workflow = x", 18, "expected AND, OR or the end before 'workflow'"),
        ("key:* AND epoch = 1 OR epoch = 2", 21, "AND and OR side by side need parentheses"),
        ("(key:*", 1, "this parenthesis is never closed"),
        ("key:*)", 6, "expected AND, OR or the end before ')'"),
        ('key = "abc', 7, "this quote is never closed"),
        ("key:abc", 5, "write `key:*` to ask whether it is set before 'abc'"),
        ("key.part = 1", 4, "`key` has no parts"),
        ("labels = x", 10, "labels are compared one by one: `labels.KEY = VALUE`"),
        ("labels.team < x", 15, "`labels.team` is a text"),
        ('labels."a b" = x', 8, "a label's key has 1 to 63 of"),
        ("start_time > yesterday", 14, "`start_time` is a time such as"),
        ("start_time > 2026-13-01", 14, "`start_time` is a time such as"),
        ("start_time > now-999999w", 14, "`start_time` is a time such as"),
        ("priority = high", 12, "`priority` is a whole number, not 'high'"),
        ("priority = 99999999999999999999", 12, "`priority` is a whole number"),
        ("dry_run = 1", 11, "`dry_run` is true or false, not '1'"),
        ("(" * (DEPTH_MAX + 1), DEPTH_MAX + 1, f"nested deeper than {DEPTH_MAX} levels"),
        (" AND ".join(["key:*"] * (TERMS_MAX + 1)), 641, f"more than {TERMS_MAX} comparisons"),
        ("key = " + "x" * 5_000, 1, "is longer than 4096 bytes"),
        ("key = a\x00", 8, "NUL characters are not allowed"),
        ("\f", 1, "expected the name of a field before '\\x0c'"),
        ("key = \xa0", 7, "expected a value for `key` before '\\xa0'"),
    ],
)
def test_what_is_not_understood_is_named_with_its_place(
    text: str, column: int, problem: str
) -> None:
    with pytest.raises(FilterInvalidError) as refused:
        parse_filter(text)

    (violation,) = refused.value.violations
    assert violation.field == f"filter:{column}"
    assert violation.description.startswith(problem)
    assert refused.value.metadata["column"] == str(column)


def test_an_unknown_field_is_named_in_the_metadata() -> None:
    with pytest.raises(FilterInvalidError) as refused:
        parse_filter("colour = red")

    assert refused.value.metadata == {"column": "1", "name": "colour"}


_WORDS = st.sampled_from(
    [*FIELDS, "labels.a", "labels:", "AND", "OR", "NOT", "-", "(", ")", "=", "!=", "<", ":", "*"]
).map(str) | st.sampled_from(
    ["waiting", '"x y"', "now-1h", "2026-01-01", "3", "true", "'", '"', "\\", "."]
)


@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=60).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never another error, and the place that is named lies in the text."""
    column = 1
    try:
        parsed = parse_filter(text)
    except FilterInvalidError as refused:
        column = int(refused.metadata["column"])
    else:
        assert len(list(leaves(parsed))) <= TERMS_MAX
        narrow(parsed)
    assert 1 <= column <= len(text) + 1


def calls_of_parsing(text: str) -> int:
    """How many calls reading the text makes: its cost, whatever the machine is busy with."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        parse_filter(text)
    except FilterInvalidError:
        pass
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize(
    "piece", ["status = waiting AND ", "NOT ", "- ", "( ", "'", '"\\', "a.", "= ", "labels.a:* "]
)
def test_the_cost_of_a_text_grows_no_faster_than_its_length(piece: str) -> None:
    """Twice the text takes at most about twice the calls; most are refused long before the end."""
    once, twice = (calls_of_parsing(piece * count) for count in (60, 120))

    assert once > 0
    assert twice <= 2.2 * once + 50


def test_what_must_hold_is_seen_through_not_and_or() -> None:
    """What an index may be chosen by is exactly what every match has."""
    narrowing = narrow(
        parse_filter(
            "NOT (status = completed OR status = failed) AND (workflow = a OR workflow = b)"
            " AND workflow = b AND labels.team = core AND (labels.x = y OR key:*)"
        )
    )

    assert narrowing.statuses == {"pending", "running", "waiting", "cancelling"} | {
        "cancelled",
        "needs_resume",
    }
    assert narrowing.workflows == frozenset({"b"})
    assert narrowing.labels == (LabelIs("team", "core"),)
    assert len(narrowing.rest) == 2


def test_contradictions_are_seen_without_looking_at_runs() -> None:
    assert narrow(parse_filter("status = failed AND status = waiting")).is_impossible
    assert narrow(parse_filter("workflow = a AND workflow = b")).is_impossible
    assert not narrow(parse_filter("workflow = a AND workflow != b")).is_impossible
