"""What fields of requests are filled with: boundaries, what nobody expects, filters and sources.

Every function draws the same number of times for the same drawn numbers, so that a seed makes the
same requests whatever the server holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fuzz import _inputs
from runkon_server.core.filters import FIELDS, LABELS, STATUSES

if TYPE_CHECKING:
    from random import Random

    Scalar = str | int | float | bool | bytes

BLANKS: Final = "\t\n\x0b\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000"
CONTROLS: Final = "\0\x01\x08\x1b\x7f\x9f\u200b\u200d\u200f\u202e\u2066\ufeff\ufffe\uffff\U0010ffff"
MARKS: Final = "\u0301\u0e33\u20dd\ufe0f\U000e0100"
DIGITS: Final = "\u0663\u0967\uff17\xb2\u2167\U0001d7d8\u4e94"
FOLDING: Final = "\u0130\u0131\xdf\ufb03\u1e9e\u03c2"
ODD: Final[tuple[str, ...]] = (
    *BLANKS, *CONTROLS, *MARKS, *DIGITS, *FOLDING, "\U0001f4a5", "'", '"', "\\", "%", "*", "@", "/",
    "#", "{{", "}}", "$", ";", "\r\n", "--",
)  # fmt: skip
PHRASES: Final = (
    "", " ", "0", "-1", "@", "w@", "@1", f"w@{2**63}", "w@\u0661", "w@0", "*", "%s%n{}{0}", "{{x}}",
    "../../etc/passwd", "'; DROP TABLE workflow_runs; --", "NaN", "Infinity", "null", "[]", "{}",
    "true", f"{2**63}", f"{10**400}", "1e999", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0301" * 40, "\u202egnp.exe", "x" * 127, "x" * 128, "x" * 129, "\xe9" * 128, "x" * 256,
    "x" * 257, "x" * 4_097, "\U0001f4a5" * 64, "\0" * 9, "\ufffd", "\\u0000", "\\ud800",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0" * 26,
    "01ARZ3NDEKTSV4RRFFQ69G5FAV/x/e1/0#0", "--help", "\n",
)  # fmt: skip
HUGE: Final = (
    "x" * 70_000, "\U0001f4a5" * 20_000, "\0" * 66_000, "[" * 70_000, "\n" * 1_100_000,
)  # fmt: skip
HUGE_ONE_IN: Final = 40
JSONS: Final = (
    "{}",
    '{"confidence": 80, "options": ["yes", "no"]}',
    "null",
    '{"a": [1, 2.5, "x", null, true]}',
    "[]",
    '["a", {"id": "b", "depends_on": ["a", "b", 7, null]}, 3]',
    f'{{"confidence": {10**400}}}',
    '{"confidence": 1e308, "options": [{"key": "\\ud800", "label": 1}, [], {}]}',
    '{"confidence": -0.0, "options": {"x": null, "": {}}}',
    '["\\ud800", {"id": "\\u0000"}, {"id": []}]',
    '[{"id": "a", "depends_on": ["\\ud800", {"a": 1}]}]',
    '[[[[]]], {"id": 1e999, "x": NaN}]',
    "[" * 63 + "]" * 63,
    "[" * 65 + "]" * 65,
    "[" * 3_000,
    '{"a":' * 2_000,
    "1" * 5_000,
    f"{2**63}",
    f"{2**53 + 1}",
    "NaN", "-Infinity", '{"a": 1e999}', "1E400", "1e-999", "-0.0", "0x10", "1_000", "\u0661",
    '"\\ud800"', '"\\u0000"', '{"\\u0000": 1}', '"\t"', '{"a": 1, "a": 2}', '{"a": 1,}', "tru",
    "{'a': 1}", "\ufeff{}", " 1 ", "\xa01",
)  # fmt: skip
"""Texts that are JSON, nearly, or more of it than is good."""

LIMITS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
EDGES: Final = (-(2**63), -(2**53) - 1, -(2**31), -1, 0, 1, 100, 101, 500, 501, 1_000, 1_001, 2**15,
                2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1)  # fmt: skip
FLOATS: Final = (0.0, -0.0, -1.0, 5e-324, 1e-300, 1.7e308, float("inf"), float("-inf"),
                 float("nan"), 2.0**53 + 2, 1e6, 1_000_001.0)  # fmt: skip
ENUM_EDGES: Final = (-(2**31), -1, 0, 1, 99, 2**31 - 1)
SECONDS: Final = (-(2**63), -315_576_000_001, -1, 0, 1, 59, 60, 61, 86_400 * 90, 86_400 * 90 + 1,
                  9_223_372_036, 9_223_372_037, 253_402_300_799, 253_402_300_800, 315_576_000_000,
                  315_576_000_001, 86_399_999_999_999, 2**53, 2**63 - 1)  # fmt: skip
NANOS: Final = (-(2**31), -1_000_000_000, -999_999_999, -1, 0, 1, 999, 999_999_999, 1_000_000_000,
                2**31 - 1)  # fmt: skip

WORDS: Final = ("deploy", "core", "it", "ask", "\xe4\xf6\xfc", "two words", "a/b.md", "v1.2")


def word(chance: Random) -> str:
    """A short text as people write it."""
    return chance.choice(WORDS)


def odd_text(chance: Random, typical: str) -> str:
    """A text that nobody expects: a phrase, a soup, a huge one, or a typical one, changed."""
    kind = chance.random()
    if chance.randrange(HUGE_ONE_IN) == 0:
        return chance.choice(HUGE)
    if kind < 0.4:
        return chance.choice(PHRASES)
    if kind < 0.55:
        return "".join(chance.choices(ODD, k=chance.choice((1, 1, 2, 5, 30))))
    if kind < 0.6:
        return chance.choice(JSONS)
    return changed(chance, typical)


def changed(chance: Random, text: str) -> str:
    """The text with something put in, taken out, turned or doubled."""
    at, strange = int(chance.random() * (len(text) + 1)), chance.choice(ODD)
    match chance.randrange(7):
        case 0:
            return text[:at] + strange + text[at:]
        case 1:
            return text[:at] + strange + text[at + 1 :]
        case 2:
            return text[:at] + text[at + 1 :]
        case 3:
            return strange + text
        case 4:
            return text + strange
        case 5:
            return text.swapcase()
        case _:
            return text[:at] + text


def odd_number(chance: Random, field: FieldDescriptor) -> int:
    """A whole number that is as far out as the field's type lets it be."""
    low, high = LIMITS[field.cpp_type]
    return min(max(chance.choice(EDGES), low), high)


def odd_scalar(chance: Random, field: FieldDescriptor, typical: Scalar) -> Scalar:
    """What nobody expects in a field that is no message."""
    if field.cpp_type in LIMITS:
        return odd_number(chance, field)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice(FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice(ENUM_EDGES)
    text = odd_text(chance, str(typical))
    return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text


def odd_span(chance: Random) -> Duration:
    """A duration out of range, of two signs, or at a limit."""
    return Duration(seconds=chance.choice(SECONDS), nanos=chance.choice((0, chance.choice(NANOS))))


def odd_instant(chance: Random) -> Timestamp:
    """An instant that no calendar has."""
    return Timestamp(seconds=chance.choice(SECONDS), nanos=chance.choice(NANOS))


# Filters and sources

OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", ":", " = ", "==", "!", "=~")
JOINTS: Final = (
    " AND ", " OR ", " and ", " AND NOT ", "\u2003AND ", " ", ")", " AND (", ",", " OR -",
)  # fmt: skip
FIELD_NAMES: Final = (
    *FIELDS, f"{LABELS}.team", f'{LABELS}."team"', LABELS, f"{LABELS}.", f"{LABELS}.\xe9", "statu",
    "a.b", "_", "NOT", "AND", "-status", "(key", "\f", "\xa0",
)  # fmt: skip
OPERANDS: Final = (
    *STATUSES, "RUNNING", "deploy", '"two words"', "'x", '"\\', '"\\"', "*", "true", "FALSE", "0",
    "-0", "7", "-99", f"{2**31}", f"{2**63 - 1}", f"{2**63}", f"-{2**63}", "9" * 40, "\u0667",
    "1e3", "now", "now-1d", "now+99999w", "now-999999w", "now-1h30m", "now-\u0661d", "now-1",
    "2026-01-31", "2026-02-30", "0001-01-01", "9999-12-31", "0000-01-01",
    "\u0662\u0660\u0662\u0666-01-01", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789Z",
    "2026-01-31t24:00:00z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "2026-01-31T12:00:60Z", "2026-01-31T12:00:00+99:99", "'\0'", "\f", "\xa0", "\u0301", "\u202e",
    "()", '""', "",
)  # fmt: skip
PLAIN: Final = (
    "status = waiting", "status != completed", 'workflow = "quick"', "priority >= 0", "epoch = 1",
    "create_time > now-1h", "NOT dismissed = true", "labels.team = core", "labels:team", "key:*",
    "end_time:*", "(status = running OR status = waiting)", "depth = 0", "dry_run = false",
    "start_time < 2030-01-01", "trigger = ''", "root_run_id:*", "started_by != zoe",
)  # fmt: skip


def plain_filter(chance: Random) -> str:
    """A filter that says something."""
    return " AND ".join(chance.choices(PLAIN, k=chance.choice((0, 1, 1, 2, 3))))


def odd_filter(chance: Random) -> str:
    """Words of the filters' grammar, in an order that they may have, or in any, or changed."""
    match chance.randrange(4):
        case 0:
            return changed(chance, plain_filter(chance))
        case 1:
            soup = chance.choices(
                (*FIELD_NAMES, *OPERATORS, *OPERANDS, *JOINTS), k=chance.randrange(9)
            )
            return chance.choice(("", " ")).join(soup)
        case 2:
            return chance.choice(("NOT ", "(", "-", "key:* AND ", "\n")) * chance.choice(
                (3, 20, 70, 900)
            )
        case _:
            text = ""
            for _ in range(chance.choice((1, 1, 2, 4))):
                text += chance.choice(FIELD_NAMES) + chance.choice(OPERATORS)
                text += chance.choice(OPERANDS) + chance.choice(JOINTS)
            return text if chance.random() < 0.3 else text[:-5]


def odd_source(chance: Random) -> str:
    """A workflow's text as the language's own fuzzer makes it, without what no message can hold."""
    index = chance.randrange(10**9)
    if index % _inputs.LARGE_EVERY == _inputs.LARGE_EVERY - 1:
        index -= 1  # those are large, and all about time
    return _inputs.make(index, index).encode(errors="replace").decode()
