"""Odd arguments for `runkon.start_run()`: each is taken, or refused by its name."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final

import psycopg

from fuzz._api_values import PHRASES, odd_text, word
from fuzz._api_world import KEYS, NO_ID, WORKFLOWS
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

ARGUMENTS: Final = {
    "workflow": "text", "inputs": "jsonb", "request_id": "text", "key": "text",
    "conflict_policy": "text", "labels": "jsonb", "priority": "integer", "dry_run": "boolean",
    "trigger": "text", "parent_run_id": "text", "start_delay": "interval", "fail_fast": "boolean",
    "namespace": "text",
}  # fmt: skip
SPANS: Final = (
    "0", "1 ms", "90 days", "91 days", "-1 us", "178000000 years", "-178000000 years", "1 mon",
    "1 year -300 days", "-1 mon 60 days", "2147483647 hours", "90 days 1 us",
)  # fmt: skip
OBJECTS: Final[tuple[Any, ...]] = (
    {}, {"what": 7}, {"what": None}, {"what": [None]}, [], None, "x", 10**400, {"": {}},
    {"what": {"a": [[None]]}}, {"queue": "*"}, {"x" * 70_000: True}, {"\u202e": "\u0301"},
    {"what": 1e308}, {str(n): n for n in range(1_001)},
)  # fmt: skip
ACCEPTED_MIN: Final = 0.1
KNOWN: Final = {
    "42704": ("WORKFLOW_NOT_FOUND", ("workflow",)),
    "22023": ("INVALID_ARGUMENT", tuple(ARGUMENTS)),
    "23505": ("REQUEST_ID_REUSED", ("request id",)),
}
"""SQLSTATE → its detail, and what its message has a word of."""


def arguments(chance: Random) -> dict[str, object]:
    """What one call says; no text holds NUL, which no parameter can."""
    given: dict[str, object] = {"workflow": chance.choice(tuple(WORKFLOWS))}
    for name in chance.sample(tuple(ARGUMENTS), chance.choice((0, 1, 1, 2, 5))):
        match ARGUMENTS[name]:
            case "jsonb":
                given[name] = json.dumps(chance.choice(OBJECTS))
            case "interval":
                given[name] = chance.choice((*SPANS, None))
            case "integer":
                given[name] = chance.choice((0, -100, 101, 2**31 - 1, -(2**31), None))
            case "boolean":
                given[name] = chance.choice((True, False, None))
            case _:
                typical = chance.choice((word(chance), *KEYS, NO_ID, "fail", "use_existing"))
                text = chance.choice(
                    (typical, odd_text(chance, typical), chance.choice(PHRASES), None)
                )
                given[name] = text and text.replace("\0", "\x01")
    return given


async def fuzz_sql(dsn: str, seed: int, count: int) -> list[str]:
    """Make so many calls, and wait until all are answered; what was wrong with some."""
    problems: dict[str, str] = {}
    accepted = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        for number in range(count):
            given = arguments(random.Random(f"{seed}:sql:{number}"))
            named = ", ".join(f"{name} => %s::{ARGUMENTS[name]}" for name in given)
            try:
                await conn.execute(f"SELECT runkon.start_run({named})", tuple(given.values()))
                accepted += 1
            except psycopg.Error as error:
                if wrong := complaint(error):
                    problems.setdefault(wrong, f"{wrong}: {given!r:.2000}")

        async def is_answered() -> bool:
            row = await (await conn.execute("SELECT count(*) FROM start_requests")).fetchone()
            return row == (0,)

        await eventually(is_answered, "every request made in SQL is answered")
    if accepted < count * ACCEPTED_MIN:
        problems["vain"] = f"only {accepted} of {count} calls were taken"
    return list(problems.values())


def complaint(error: psycopg.Error) -> str:
    """What is wrong with how a call was refused, if anything."""
    diag: Any = error.diag
    detail, words = KNOWN.get(error.sqlstate or "", ("", ()))
    is_told = has_any(diag.message_primary or "", words)
    if detail and diag.message_detail == detail and is_told:
        return ""
    return f"start_run fails with {error.sqlstate}, {diag.message_primary!r:.200}"


def has_any(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in the text."""
    return any(each in text for each in words)
