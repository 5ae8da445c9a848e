"""What is offered at a place, `|` being the cursor."""

from __future__ import annotations

import pytest

from runkon_server.dsl.describing import GATE_TYPES, VARIABLES
from runkon_server.dsl.editing.completing import Completion, complete
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import NODE_KEYWORDS
from support.editing import company, marked
from support.workflows import short

STEPS = sorted(NODE_KEYWORDS)
CHILD = (
    "workflow child { inputs { who required loud boolean } call greet if greet.done { call x } }"
)


def offers(text: str, *others: str) -> list[Completion]:
    document, offset = marked(text)
    return list(complete(document, offset, company(document, *others)))


def labels(text: str, *others: str) -> list[str]:
    return [item.label for item in offers(text, *others)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|", ["workflow"]),
        ("work|", ["workflow"]),
        ("// a note\n|", ["workflow"]),
        ("workflow |", ["w"]),
        ("workflow w |", []),
        ("workflow w { | }", [*STEPS, "inputs", "meta"]),
        ("workflow w { if a.b { | } }", STEPS),
        ("workflow w { always { | } }", STEPS),
        ("workflow w {\n  ca|", [*STEPS, "inputs", "meta"]),
        ("workflow w { call x } |", []),
    ],
    ids=short,
)
def test_keywords_that_may_start_here_are_offered(text: str, expected: list[str]) -> None:
    """In files, bodies and blocks; not where only a brace can follow."""
    assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("workflow w { meta { | } }", "meta"),
        ("workflow w { call x { | } }", "call"),
        ("workflow w { call x { ret|", "call"),
        ("workflow w {\n  call x {\n    |\n  call y\n}\n", "call"),
        ("workflow w { call workflow x { | } }", "call workflow"),
        ("workflow w { script s { | } }", "script"),
        ("workflow w { foreach f { | } }", "foreach"),
        ("workflow w { parallel { call x { | } } }", "parallel call"),
        ("workflow w { gate human_review { | } }", "gate human_review"),
        ("workflow w { gate quality_gate { | } }", "gate quality_gate"),
        ("workflow w { gate deploy { | } }", "gate"),
    ],
    ids=short,
)
def test_all_options_of_a_block_are_offered(text: str, construct: str) -> None:
    """Required ones first, each with its type and default."""
    found = offers(text)

    assert sorted(item.label for item in found) == sorted(KEYS[construct])
    required = [KEYS[construct][item.label].required for item in found]
    assert required == sorted(required, reverse=True)
    for item in found:
        key = KEYS[construct][item.label]
        assert item.detail.startswith(key.kind)
        assert (key.default or "") in item.detail
        assert item.insert == f"{item.label} = "
        assert key.doc[1:] in item.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "workflow w { while a.b { | } }",
            ["max_iterations", "stuck_after", "on_max_iter", *STEPS],
        ),
        (
            "workflow w { do { | } while a.b }",
            ["max_iterations", "stuck_after", "on_max_iter", *STEPS],
        ),
        (
            "workflow w { do { | } }",
            ["max_iterations", "output", "with", "stuck_after", "on_max_iter", *STEPS],
        ),
        (
            "workflow w { parallel { fail_fast = true | } }",
            ["min_success", "output", "with", "name", "call"],
        ),
        ("workflow w { parallel { call a\n| } }", ["call"]),
        ("workflow w { while a.b { max_iterations = 1 call x\n | } }", STEPS),
    ],
    ids=short,
)
def test_options_come_before_the_steps_of_a_block(text: str, expected: list[str]) -> None:
    """Those given already are not offered again, and none behind the first step."""
    assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workflow w { call plan if | { } call late }", ["plan", "late"]),
        ("workflow w { call plan if pl| { } }", ["plan"]),
        ("workflow w { inputs { dry boolean who } call plan unless | { } }", ["plan", "dry"]),
        ("workflow w { inputs { dry boolean } call plan while | { } }", ["plan"]),
        ("workflow w { do { call plan } while | }", ["plan"]),
        (
            "workflow w { call plan if plan.| { } if plan.ok { } unless plan.bad { } }",
            ["ok", "bad"],
        ),
        (
            "workflow w { call r { output = report } if r.| { } if r.has_findings { } if r.z { } }",
            ["has_findings", "z", "has_critical_findings", "has_high_findings", "not_approved"],
        ),
        ("workflow w { call plan if plan.o| { } if plan.ok { } }", ["ok"]),
        ("workflow w { call plan parallel { call x { if = | } } }", ["plan"]),
        ('workflow w { call plan if plan.a { } parallel { call x { if = "plan.|" } } }', ["a"]),
        ("workflow w { call plan if plan.a { } parallel { call x { if = plan.| } } }", ["a"]),
        ('workflow w { call "ops/scan.md" if | { } }', ["scan"]),
        ("workflow w { parallel { name = all call x } if | { } }", ["all", "x"]),
        ("workflow w { script s { run = x } gate quality_gate { source = | } }", ["s"]),
        ("workflow w { call workflow child if | { } }", ["child"]),
    ],
    ids=short,
)
def test_conditions_offer_steps_inputs_and_markers(text: str, expected: list[str]) -> None:
    """Steps before the place come first; markers are those asked for elsewhere."""
    assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workflow w { call | }", ["greet", "x", "workflow"]),
        ("workflow w { call workflow | }", ["child"]),
        ("workflow w { call workflow ch| }", ["child"]),
        ("workflow w { foreach f { workflow = | } }", ["child"]),
        ("workflow w { call workflow child { inputs { | } } }", ["who", "loud"]),
        ("workflow w { call workflow child { inputs = { who = a | } } }", ["loud"]),
        ("workflow w { foreach f { workflow = child inputs = { | } } }", ["who", "loud"]),
        ("workflow w { call workflow child { inputs { loud = | } } }", ["true", "false"]),
        ("workflow w { call workflow child { inputs { who = | } } }", []),
        ("workflow w { parallel { call | } }", ["greet", "x"]),
    ],
    ids=short,
)
def test_other_workflows_are_offered_with_what_they_need(text: str, expected: list[str]) -> None:
    """Actions that others call, names of workflows, inputs that are not given yet."""
    assert labels(text, CHILD) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workflow w { gate | }", [*GATE_TYPES]),
        ("workflow w { gate human_review { on_timeout = | } }", ["fail", "continue"]),
        ("workflow w { gate human_review { on_timeout = co| } }", ["fail", "continue"]),
        ('workflow w { gate human_review { on_timeout = "|" } }', ["fail", "continue"]),
        ("workflow w { gate pr_approval { mode = | } }", ["min_approvals", "review_decision"]),
        ("workflow w { meta { trigger = | } }", ["manual", "pr", "scheduled"]),
        ("workflow w { foreach f { on_child_fail = | } }", ["halt", "continue", "skip_dependents"]),
        ("workflow w { parallel { fail_fast = | } }", ["true", "false"]),
        ("workflow w { call a { on_fail = | } }", ["continue", "a"]),
        ("workflow w { call a { timeout = | } }", ['"30s"', '"5m"', '"1h"']),
        ("workflow w { call a { retries = | } }", []),
        ("workflow w { meta { targets = [| ] } }", []),
        ("workflow w { meta { targets = [a, | ] } }", []),
        ("workflow w { inputs { loud boolean default = | } }", ["true", "false"]),
        ("workflow w { inputs { who default = | } }", []),
        ("workflow w { inputs { | } }", []),
        ("workflow w { inputs { who | } }", ["boolean", "default", "description", "required"]),
        ("workflow w { script s { env = { | } } }", []),
        ("workflow w { script | }", []),
        ("workflow w { // call |\n}", []),
        ('workflow w { meta { title = "call |" } }', []),
    ],
    ids=short,
)
def test_values_are_offered_where_there_are_only_so_many(text: str, expected: list[str]) -> None:
    """Words, gate types, examples of durations; nothing in comments, lists and free texts."""
    assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('workflow w { inputs { who } script s { run = "hi {{|" } }', ["who", *VARIABLES]),
        ('workflow w { inputs { who } script s { run = "hi {{ wh|o }}" } }', ["who", *VARIABLES]),
        ('workflow w { foreach f { inputs = { a = "{{|}}" } } }', ["item.id", *VARIABLES]),
        ('workflow w { script s { run = "{{ a }} |" } }', []),
        (
            'workflow w {\n script s { run = "{{| }\n call x { as = "y" }\n inputs { who }\n}',
            ["who", *VARIABLES],
        ),
    ],
    ids=short,
)
def test_placeholders_offer_inputs_and_variables(text: str, expected: list[str]) -> None:
    """Between `{{` and `}}`, also while the string is not closed yet."""
    assert labels(text) == expected


def test_a_placeholder_is_closed_only_if_it_is_not_yet() -> None:
    """`}}` is added where the line has none that belongs to it."""
    opened = offers('workflow w { inputs { who } script s { run = "{{|" } }')
    closed = offers('workflow w { inputs { who } script s { run = "{{|}}" } }')

    assert opened[0].insert == "who }}"
    assert closed[0].insert == "who"


def test_a_completion_replaces_what_was_typed_of_the_word() -> None:
    """From its start to the cursor, and not what stands behind it."""
    document, offset = marked("workflow w { call x { ret|ries } }")

    item = complete(document, offset, company(document))[0]

    assert document.text[item.start : item.end] == "ret"


def test_unasked_only_what_is_certain_is_offered() -> None:
    """A blank at the start of a statement opens no list; one behind `call workflow` does."""
    statement, at = marked("workflow w { | }")
    child, behind = marked("workflow w { call workflow | }")

    assert complete(statement, at, company(statement), is_asked=False) == ()
    assert complete(child, behind, company(child, CHILD), is_asked=False) != ()


def test_keywords_carry_the_shape_of_their_construct() -> None:
    """As snippets; `workflow` behind `call`, and `while` behind a `do`, are no blocks."""
    (file,) = offers("|")
    agent = offers("workflow w { call | }")
    loop = offers("workflow w { do { call a } | }")

    assert file.snippet == "workflow ${1:name} {\n  $0\n}"
    assert [item.snippet for item in agent if item.label == "workflow"] == ["workflow ${1:name}"]
    assert loop[0].snippet == "while ${1:step}.${2:marker}"
