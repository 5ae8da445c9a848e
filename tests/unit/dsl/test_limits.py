"""Nothing in a text can make the parser fail, recurse or run on and on."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runkon_server.dsl import limits
from runkon_server.dsl.check import check
from runkon_server.dsl.codes import Group
from runkon_server.dsl.snapshot import dump, load
from runkon_server.dsl.tokens import KEYWORDS
from runkon_server.dsl.unsupported import refuse_unsupported
from support.workflows import accepted, codes, read, short, wrap

SOUP = [
    *sorted(KEYWORDS), "{", "}", "[", "]", ",", "=", ".", "x", "y.m", '"s"', '"a/b.md"', "3",
    "retries", "max_iterations", "on_fail", "with", "name", "human_review", "quality_gate", "\n",
    "// c\n", ";", "#", "é", "'q'", '"', "\\", "else", "-1", "/*",
]  # fmt: skip
STRAY = '\x00\t\n"/\\é\u2028'
SEED_TEXT = """\
workflow w {
  meta { title = "T" targets = ["repo"] }
  inputs { a required b boolean default = "true" c default = "x" description = "d" }
  call plan { retries = 2 on_fail = "x/y.md" with = [a, "b"] timeout = "5m" }
  if plan.done { parallel { fail_fast = false call a { if = "plan.m" } call b } }
  do { max_iterations = 3 call fix } while fix.again
  gate human_review { prompt = "ok?" options = { a = "1", b = "2" } }
  script s { run = "x {{a}}" env = { A = "1" } }
  foreach f { over = list max_parallel = 2 workflow = c inputs = { q = "{{item.id}}" } }
  always { call note }
}
"""


def holds_for_any_text(text: str) -> None:
    """Nothing is raised, the problems are bounded, and what is accepted can be used."""
    result = read(text)

    assert len(result.diagnostics) <= 2 * limits.PROBLEMS + 2
    assert result.render() or result.definition is not None
    for each in result.diagnostics:
        assert 0 <= each.span.offset <= each.span.end <= len(text)
    if result.definition is not None:
        check(result.definition)
        refuse_unsupported(result.definition)
        assert load(dump(result.definition)) == result.definition


@settings(max_examples=300)
@given(st.lists(st.sampled_from(SOUP), max_size=60), st.booleans())
def test_token_soup(tokens: list[str], is_wrapped: bool) -> None:  # noqa: FBT001 - drawn
    text = " ".join(tokens)
    holds_for_any_text(wrap(text) if is_wrapped else text)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 6))
@example(random.Random(0), 1)
def test_mutated_text(chance: random.Random, edits: int) -> None:
    """Cuts, copies and stray characters in a valid file."""
    text = SEED_TEXT
    for _ in range(edits):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text = text[:at] + text[at + chance.randrange(9) :]
            case 1:
                text = text[:at] + chance.choice(SOUP) + text[at:]
            case 2:
                text = text[:at] + chance.choice(STRAY) + text[at:]
            case _:
                source = chance.randrange(len(text) + 1)
                text = text[:at] + text[source : source + chance.randrange(80)] + text[at:]
    holds_for_any_text(text)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_mutated_bytes(data: bytes) -> None:
    holds_for_any_text(SEED_TEXT[:100] + data.decode("utf-8", "replace") + SEED_TEXT[100:])


@pytest.mark.parametrize(
    "unit",
    [
        "{", "}", "{}", "[", "if a.b { ", "do { ", "parallel { ", "call x { with = [", "a = { ",
        "call workflow x { inputs { ", "script s { env = { a ", "[ = ", "while a.b {", '"', '"\\',
        "call x ", "gate g { } ", "inputs { a ", "x = y ", "/", "'", "\n}", "always {", "a.",
    ],
)  # fmt: skip
def test_nothing_nests_without_end(unit: str) -> None:
    """100,000 bytes of one piece; no input reaches the interpreter's stack."""
    size = 100_000 // len(unit.encode())
    holds_for_any_text(unit * size)
    holds_for_any_text(f"workflow w {{ {unit * size}")


def test_nesting_100000_deep_is_an_ordinary_error() -> None:
    """The text is over the size limit by then; cut to that, depth is the complaint."""
    text = "workflow w { " + "if a.b { " * 100_000

    assert [each.code for each in read(text).diagnostics] == ["WF402"]
    assert "WF403" in [each.code for each in read(text[:200_000]).diagnostics]


def test_blocks_nest_24_deep() -> None:
    at_limit = "do { " * limits.DEPTH + "call x " + "} " * limits.DEPTH

    assert codes(at_limit) == []
    assert codes(f"do {{ {at_limit} }}") == ["WF403"]


def test_a_block_that_is_too_deep_is_skipped_whole() -> None:
    """One error, and reading goes on behind it."""
    deep = "do { " * (limits.DEPTH + 50) + "} " * (limits.DEPTH + 50)

    assert codes(f"{deep} foo") == ["WF403", "WF204"]


def test_10_mib_are_refused_at_once() -> None:
    result = read("workflow w { " + "call x\n" * 1_500_000 + "}")

    assert [each.code for each in result.diagnostics] == ["WF402"]
    assert result.render().startswith("w.wf:1:1: error WF402")


def test_size_counts_bytes() -> None:
    assert codes("// " + "é" * (limits.SOURCE_BYTES // 2)) == ["WF402"]


def test_2000_steps_are_allowed() -> None:
    """Calls of a parallel block count as steps of their own."""
    assert codes("call x " * limits.NODES) == []
    assert codes("call x " * (limits.NODES + 1)) == ["WF404"]
    calls = "call x " * (limits.NODES - 1)
    assert codes(f"parallel {{ {calls} }}") == []
    assert codes(f"parallel {{ {calls} call x }}") == ["WF404"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"call {'x' * 128}", []),
        (f'call "{"x" * 129}"', ["WF405"]),
        (f"gate human_review {{ name = {'x' * 129} }}", ["WF405"]),
        ("call x { retries = 20 }", []),
        ("call x { retries = 21 }", ["WF407"]),
        ("call x { retries = 4294967296 }", ["WF401"]),
        ('call x { retries = "99999999999999999999" }', ["WF401"]),
        ('call x { timeout = "24h" }', []),
        ('call x { timeout = "1441m" }', ["WF407"]),
        ('script s { run = x timeout = "25h" }', ["WF407"]),
        ('call x { retry_delay = "5m" }', []),
        ('call x { retry_delay = "301s" }', ["WF407"]),
        ('gate human_review { timeout = "2160h" }', []),
        ('gate human_review { timeout = "2161h" }', ["WF407"]),
        ('gate human_review { timeout = "9999999h" }', ["WF407"]),
        (f'gate human_review {{ timeout = "{"9" * 5000}h" }}', ["WF407"]),
        ("while x.m { max_iterations = 1000 }", []),
        ("while x.m { max_iterations = 1001 }", ["WF407"]),
        ("while x.m { max_iterations = 4294967295 }", ["WF407"]),
        ("foreach f { over = x workflow = y max_parallel = 256 }", []),
        ("foreach f { over = x workflow = y max_parallel = 257 }", ["WF407"]),
        (f'call x {{ as = "{"y" * 65_536}" }}', []),
        (f'call x {{ as = "{"é" * 32_769}" }}', ["WF406"]),
        (f"call x {{ with = [{'a ' * 1001}] }}", ["WF410"]),
        (f"script s {{ run = x env = {{ {'a = b ' * 1001} }} }}", ["WF410"]),
        (f"inputs {{ {' '.join(f'a{n}' for n in range(1001))} }}", ["WF410"]),
        (f"do {{ {' '.join(f'a{n} = 1' for n in range(1001))} }}", ["WF410"]),
    ],
    ids=short,
)
def test_limits(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


def test_limits_belong_to_their_own_group() -> None:
    """A caller sees DSL_LIMIT, not DSL_SYNTAX."""
    (problem,) = read(wrap("call x { retries = 21 }")).diagnostics

    assert problem.group is Group.LIMIT


def test_100_errors_end_the_reading() -> None:
    found = codes("call x { , } " * 500)

    assert found == ["WF208"] * 100 + ["WF408"]


def test_accepted_programs_are_shallow_enough_to_walk() -> None:
    """Whatever the parser accepts, every other pass can recurse over."""
    definition = accepted("do { " * limits.DEPTH + "} " * limits.DEPTH)

    assert load(dump(definition)) == definition
