"""Every diagnostic code has an example here, in which `@` marks the place of the complaint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.dsl import limits
from runkon_server.dsl.ast import ForEach
from runkon_server.dsl.check import World, check
from runkon_server.dsl.codes import CODES, Group, Severity
from runkon_server.dsl.diagnostics import Diagnostic, diagnostic, did_you_mean, one_of, strict
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import dump, load
from runkon_server.dsl.snapshots.explaining import read_snapshot
from runkon_server.dsl.source import Source
from runkon_server.dsl.unsupported import NOT_SERVED
from runkon_server.dsl.validate_set import validate_set
from support.workflows import accepted, read, wrap
from support.worlds import WORLD

if TYPE_CHECKING:
    from collections.abc import Iterable

SNAPSHOT: Final = (
    '@{"name": "w", "description": "", "trigger": "manual", "inputs": [], "always": [],'
    ' "source_path": "w.wf",'
    ' "body": [{"type": "call", "agent": {"kind": "name", "value": "build"}, %s}]}'
)
FILES: Final[dict[str, str]] = {
    "WF101": "workflow w @$ { }",
    "WF102": 'workflow w { call x { as = @"me } }',
    "WF103": "workflow w { } // @\x00",
    "WF202": "workflow w { } @workflow v { }",
    "WF203": "workflow w { call x@",
    "WF519": "@workflow w { meta { targets = [moon] } }",
    "WF559": "@workflow twice { call build }",
    "WF560": "@workflow v { call build }",
    "WF701": '@{"name": "w"}',
    "WF702": SNAPSHOT % '"bot_name": "robot"',
    "WF703": SNAPSHOT % '"colour": "red"',
    "WF402": "@" + " " * (limits.SOURCE_BYTES + 1),
}
CONTENTS: Final[dict[str, str]] = {
    "WF104": r'call x { as = "a@\d" }',
    "WF201": "call x { retries @2 }",
    "WF204": "@notify x",
    "WF205": "if a.b { call x @output = y }",
    "WF206": "do @x.again { call x }",
    "WF207": "do { max_iterations = 2 call x } while x.m @{ max_iterations = 3 }",
    "WF208": "call x { retries = 1@, as = me }",
    "WF209": "parallel { call x @gate human_review { } }",
    "WF210": "@parallel { }",
    "WF301": "call x { @retires = 2 }",
    "WF302": "call x { retries = 2 @retries = 3 }",
    "WF303": "@script s { }",
    "WF304": "call x { retries = @[1] }",
    "WF305": "call x { retries = @many }",
    "WF306": "meta { trigger = @sometimes }",
    "WF307": 'call x { timeout = @"1h30m" }',
    "WF308": 'call @"../x.md"',
    "WF309": "while @ready { max_iterations = 2 }",
    "WF310": "gate quality_gate { source = x threshold = @101 }",
    "WF311": "gate pr_approval { mode = review_decision min_approvals = @2 }",
    "WF312": "gate quality_gate { source = x threshold = 1 @options = [a] }",
    "WF313": "gate human_review { options = @scan }",
    "WF314": "while x.m { max_iterations = @0 }",
    "WF315": "parallel { fail_fast = @yes call x }",
    "WF316": "do { @retries = 1 call x }",
    "WF317": 'foreach f { over = list max_parallel = 1 workflow = @"../x" }',
    "WF318": "call workflow c { inputs { a = 1 } @inputs { b = 2 } }",
    "WF321": "gate human_review { @mode = min_approvals }",
    "WF322": 'call @"plan"',
    "WF323": "call x { on_fail = @fail }",
    "WF324": "inputs { a required default = @x }",
    "WF325": "inputs { a boolean @required }",
    "WF326": "meta { trigger = @pr }",
    "WF327": "do { @always { call x } }",
    "WF328": "while x.m { max_iterations = 2 stuck_after = @1 }",
    "WF329": "inputs { a @a }",
    "WF330": "inputs { a @string }",
    "WF331": "gate human_review { } @gate human_review { }",
    "WF332": "gate human_review { name = ok } gate human_review { name = @ok }",
    "WF401": 'call x { max_turns = @"4294967296" }',
    "WF403": "if a.b { " * limits.DEPTH + "if a.b @{ " + "} " * (limits.DEPTH + 1),
    "WF404": "call x " * limits.NODES + "@call x",
    "WF405": f"call @{'x' * (limits.NAME_LENGTH + 1)}",
    "WF406": f'call x {{ as = @"{"x" * (limits.STRING_BYTES + 1)}" }}',
    "WF407": "call x { retries = @21 }",
    "WF408": "call x { , } " * (limits.PROBLEMS - 1) + "call x { @, } " * 2,
    "WF409": "call x { a = 1 } " * (limits.PROBLEMS - 1) + "call x { @a = 1 } " * 2,
    "WF410": f"call x {{ with = [{'a ' * limits.ENTRIES}a@] }}",
    "WF501": "if @plan.done { } call plan",
    "WF502": "inputs { ready } if @ready { }",
    "WF503": "while @fix.again { max_iterations = 2 call fix }",
    "WF504": "do { max_iterations = 2 call fix } while @test.failing",
    "WF505": "parallel { call a call b { if = @a.ok } }",
    "WF507": "@gate quality_gate { source = scan threshold = 1 }",
    "WF551": "@parallel { min_success = 2 call x }",
    "WF552": "inputs { @dry_run boolean }",
    "WF601": "@foreach f { over = list max_parallel = 1 workflow = c }",
    "WF508": "@call workflow gone",
    "WF509": "@call workflow child { inputs { fast = true } }",
    "WF510": "@foreach f { over = list max_parallel = 1 workflow = gone }",
    "WF511": "@foreach f { over = list max_parallel = 1 workflow = child }",
    "WF512": "@foreach f { over = lists max_parallel = 1 workflow = leaf }",
    "WF513": "@foreach f { over = list max_parallel = 1 workflow = leaf scope = { a = b } }",
    "WF514": "@foreach f { over = tickets max_parallel = 1 workflow = leaf filter = { a = b } }",
    "WF515": "@foreach f { over = list max_parallel = 1 workflow = leaf ordered = true }",
    "WF516": "@foreach f { over = list max_parallel = 1 workflow = leaf "
    "on_child_fail = skip_dependents }",
    "WF517": "@foreach f { over = tickets max_parallel = 1 workflow = leaf }",
    "WF518": "@foreach f { over = list max_parallel = 1 workflow = leaf filter = { a = b } }",
    "WF520": "@call workflow w",
    "WF521": "@call workflow deep1",
    "WF522": '@script s { run = "bin/gone --all" }',
    "WF523": '@script s { run = "bin/locked" }',
    "WF524": '@script s { run = "bin/plain" }',
    "WF525": "@call x",
    "WF526": "parallel { @call x }",
    "WF528": "@gate deploy { }",
    "WF529": '@script s { run = "make" }',
    "WF553": '@call workflow child { inputs { name = "n" fats = true } }',
    "WF554": '@call workflow child { inputs { name = "n" fast = maybe } }',
    "WF555": "call x while @x.m { max_iterations = 2 call y }",
    "WF556": "do { max_iterations = 2 stuck_after = 1 call x } while x.m @call y",
    "WF557": '@script s { run = "make {{targt}}" }',
    "WF558": '@gate human_review { prompt = "Ship {{version}}?" }',
    "WF566": "@call build { on_fail = nobody }",
    "WF567": 'inputs { f } @script s { run = "wc -l `basename {{f}}`" }',
    "WF565": "@call build { retry_delay = 5 }",
    "WF561": "@call build { with = [hous-style] }",
    "WF562": "@call build { output = verdct }",
    "WF563": "parallel { @call build { output = broken } }",
    "WF564": "@call build { as = stranger }",
}
EXAMPLES: Final = FILES | {code: wrap(text) for code, text in CONTENTS.items()}


WITHOUT_SCRIPTS: Final = replace(WORLD, executes_scripts=False)


def everything(text: str, world: World = WORLD) -> Iterable[Diagnostic]:
    """What the parser, the checker and the server have to say about a file that is not alone."""
    read = read_snapshot if text.startswith('{"') else parse
    files = {"other.wf": parse("workflow twice { }", "other.wf"), "w.wf": read(text, "w.wf")}
    return validate_set(files, world)["w.wf"].diagnostics


@pytest.fixture(autouse=True)
def _a_server_that_does_not_fan_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one runs all of the language, so that nothing else would give WF601."""
    monkeypatch.setitem(NOT_SERVED, ForEach, "`foreach` steps")


def split(example: str) -> tuple[str, int]:
    """The example without its marks, and the offset of the first."""
    return example.replace("@", ""), example.index("@")


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_given_at_the_marked_place(code: str) -> None:
    """Walks the table of codes; a code without an example fails."""
    text, offset = split(EXAMPLES[code])
    world = WITHOUT_SCRIPTS if code == "WF529" else WORLD
    found = [each for each in everything(text, world) if each.code == code]

    assert [each.span.offset for each in found][:1] == [offset]
    assert found[0].severity is CODES[code].severity
    assert found[0].message


def test_every_example_has_a_code() -> None:
    """The other way round: no example for a code that does not exist."""
    assert sorted(EXAMPLES) == sorted(CODES)


@pytest.mark.parametrize("code", [code for code in CODES if code < "WF400"])
def test_one_mistake_is_one_complaint(code: str) -> None:
    """The examples of the parser contain one mistake each, and nothing follows from it."""
    text, _ = split(EXAMPLES[code])

    assert [each.code for each in read(text).diagnostics] == [code]


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("WF201", Group.SYNTAX),
        ("WF307", Group.SYNTAX),
        ("WF401", Group.LIMIT),
        ("WF407", Group.LIMIT),
        ("WF501", Group.SEMANTIC),
        ("WF601", Group.UNSUPPORTED),
    ],
)
def test_a_code_maps_to_an_error_reason(code: str, group: Group) -> None:
    """The group is what a caller of the service sees as the reason."""
    text, _ = split(EXAMPLES[code])

    assert next(each for each in everything(text) if each.code == code).group is group


def test_rendering_shows_the_line_and_carets() -> None:
    result = read("workflow w {\n\tcall x { retires = 2 }\n}\n")

    assert result.render() == (
        "w.wf:2:11: warning WF301: `call` has no option `retires`\n"
        "    2 |  call x { retires = 2 }\n"
        "      |           ^^^^^^^\n"
        "      = did you mean `retries`?"
    )


def test_carets_stand_below_wide_characters() -> None:
    """A character of double width moves the caret by two."""
    (problem,) = read('workflow w { call x { as = "日本" retires = 2 } }').diagnostics
    _, line, carets, _ = problem.render(
        Source('workflow w { call x { as = "日本" retires = 2 } }', "")
    ).split("\n")

    assert carets.index("^") == line.index("retires") + 2


def test_rendering_is_safe_for_terminals() -> None:
    """Escape sequences from the source or its label are not passed on."""
    text = 'workflow w { call x { as = "\x1b[31m" retires = 2 } }'

    assert "\x1b" not in parse(text, "\x1b]0;title").render()


def test_a_long_line_is_cut_around_the_place() -> None:
    text = f'workflow w {{ call x {{ as = "{"y" * 500}" retires = 2 as = z }} }}'
    (_, line, carets, _), *_ = (
        each.render(Source(text, "w.wf")).split("\n") for each in read(text).diagnostics
    )

    assert len(line) < 120
    assert line[carets.index("^") :].startswith("retires")


def test_a_problem_without_a_place_can_be_shown() -> None:
    """Nodes that were loaded from a snapshot have none."""
    definition = load(dump(accepted("inputs { dry_run }")))
    (problem,) = check(definition)

    head, *rest = problem.render(Source("", "w.wf")).split("\n")

    assert head.startswith("w.wf: warning WF552: `dry_run` is")
    assert rest == ["      = give the input another name"]


def test_a_position_counts_code_points_and_only_line_feeds() -> None:
    """Tabs, carriage returns and characters outside the basic plane are one column each."""
    text = 'workflow w {\r\n// 😀\x85\u2028\n\t"😀" }'
    (problem,) = read(text).diagnostics

    assert (problem.span.line, problem.span.column) == (3, 2)


def test_expected_spellings_are_given_as_data() -> None:
    (problem,) = read("workflow w { meta { trigger = sometimes } }").diagnostics

    assert problem.expected == ("manual", "pr", "scheduled")


def test_strict_raises_warnings_to_errors() -> None:
    raised = strict(read(wrap("call x { retires = 2 }")).diagnostics)

    assert [each.severity for each in raised] == [Severity.ERROR]


def test_suggestions_need_a_near_word() -> None:
    assert did_you_mean("retires", ["retries", "as"]) == "did you mean `retries`?"
    assert did_you_mean("colour", ["retries", "as"]) is None
    assert did_you_mean("x" * 1000, ["x" * 999]) is None


def test_choices_are_spoken() -> None:
    assert one_of(["a"]) == "`a`"
    assert one_of(["a", "b", "a name"]) == "`a`, `b` or a name"


def test_a_diagnostic_takes_the_severity_of_its_code() -> None:
    span = Source("x", "w.wf").span(0, 1)

    assert diagnostic(CODES["WF301"], span, "m").severity is Severity.WARNING
    assert diagnostic(CODES["WF201"], span, "m").severity is Severity.ERROR
