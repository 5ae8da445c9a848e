"""Questions about syntax trees, and durations."""

from __future__ import annotations

import pytest

from runkon_server.dsl import queries
from runkon_server.dsl.ast import AgentKind, AgentRef
from runkon_server.dsl.durations import SATURATED_MS, parse_duration
from support.workflows import accepted, short

PROGRAM = accepted("""
    meta { title = "The title" }
    call plan { on_fail = triage output = plan.yaml with = [b a] as = bot plugin_dirs = [p] }
    if plan.more {
      parallel { output = all with = [c] call "x/left.md" { output = own with = [d] } call plan }
    }
    do {
      max_iterations = 4
      foreach each { over = list max_parallel = 1 workflow = child }
    } while plan.more
    do { output = block.yaml with = [e] script s { run = x on_fail = "x/fix.md" as = root } }
    call workflow child { on_fail = continue as = bot }
    gate human_review { as = boss }
    always { while plan.more { max_iterations = 9 } call plan }
""")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("ops/scan.md", "scan"),
        ("scan", "scan"),
        (".x", ".x"),
        ("a.tar.gz", "a.tar"),
        ("ops/", "ops"),
        ("a.b/c", "c"),
        ("./", "./"),
        ("x/.hidden.md", ".hidden"),
    ],
)
def test_the_key_of_a_path_is_its_stem(path: str, key: str) -> None:
    assert queries.agent_key(AgentRef(kind=AgentKind.PATH, value=path)) == key


def test_a_name_is_its_own_key() -> None:
    assert queries.agent_key(AgentRef(kind=AgentKind.NAME, value="a.b")) == "a.b"


def test_every_step_has_one_key() -> None:
    """IMP-39: the same for records, results and resume; a gate's is its name."""
    keys = [
        queries.step_key(node)
        for node in queries.all_nodes(PROGRAM)
        if isinstance(node, queries.KeyedNode)
    ]

    assert keys == ["plan", "foreach:each", "s", "child", "human_review", "plan"]


def test_counts() -> None:
    """Containers count with what they contain, a parallel block with its calls."""
    assert queries.total_nodes(PROGRAM) == 13
    assert queries.top_level_steps(PROGRAM) == 8


def test_the_first_loop_on_a_step_gives_its_limit() -> None:
    assert queries.max_iterations(PROGRAM, "plan") == 4
    assert queries.max_iterations(PROGRAM, "child") is None


def test_collections_are_sorted_and_unique() -> None:
    assert [(ref.kind.value, ref.value) for ref in queries.agent_refs(PROGRAM)] == [
        ("name", "plan"),
        ("name", "triage"),
        ("path", "x/fix.md"),
        ("path", "x/left.md"),
    ]
    assert queries.snippet_refs(PROGRAM) == ("a", "b", "c", "d", "e")
    assert queries.schema_refs(PROGRAM) == ("all", "block.yaml", "own", "plan.yaml")
    assert queries.identities(PROGRAM) == ("boss", "bot", "root")
    assert queries.plugin_dirs(PROGRAM) == ("p",)


def test_workflow_references_keep_their_order() -> None:
    assert queries.workflow_refs(PROGRAM) == ("child", "child")


def test_the_display_name_is_the_title_or_the_name() -> None:
    assert queries.display_name(PROGRAM) == "The title"
    assert queries.display_name(accepted("call x")) == "w"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90", 90_000),
        ("+5h", 18_000_000),
        ("300ms", 300),
        ("2m", 120_000),
        ("0s", 0),
        (' "90s" ', 90_000),
        ("007", 7_000),
        ("0" * 5000 + "1s", 1_000),
        ("9" * 5000 + "ms", SATURATED_MS),
        ("9999999999999999999h", SATURATED_MS),
    ],
    ids=short,
)
def test_durations(text: str, ms: int) -> None:
    duration = parse_duration(text)

    assert duration is not None
    assert (duration.text, duration.ms, duration.seconds) == (text, ms, ms / 1000)


@pytest.mark.parametrize(
    "text", ["", "s", "2d", "1h30m", "1.5s", "-1", "1 s", "5S", "٣", "1_0", '"', "++1", "1\n2"]
)
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize("text", ["0" * 200_000 + "x", "9" * 200_000 + "x"], ids=short)
def test_hopeless_durations_take_one_pass(text: str) -> None:
    """Would not end within the test's time limit if the match were quadratic."""
    assert parse_duration(text) is None
