"""The checks of the specification's §5.1, §5.2 and §5.4, by number, and those added to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runkon_server.dsl.check import World, check
from runkon_server.dsl.strings import quote
from support.workflows import accepted
from support.worlds import WORLD, load, named

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition

EACH = "foreach f {{ over = {over} max_parallel = 1 workflow = leaf {rest} }}"


def found(text: str, world: World = WORLD) -> list[str]:
    return [each.code for each in check(accepted(text), world)]


def each(over: str, rest: str = "") -> str:
    return EACH.format(over=over, rest=rest)


def test_without_a_world_nothing_is_concluded() -> None:
    """Unknown children, providers, workers and targets are no errors when nobody knows them."""
    text = f"""
        meta {{ targets = [moon] }} call unheard call workflow gone gate deploy {{ }}
        {each("nothing", "scope = { a = b }")}
    """
    assert found(text, World()) == []


def test_v08_an_unknown_workflow() -> None:
    (problem,) = check(accepted("call workflow gone"), WORLD)

    assert problem.code == "WF508"
    assert problem.message.endswith("no such file")


def test_v09_every_missing_input_is_told() -> None:
    world = replace(WORLD, load=named({"two": "inputs { a b c default = x }"}).__getitem__)

    problems = check(accepted("call workflow two { inputs { c = 1 } }"), world)
    assert [problem.code for problem in problems] == ["WF509", "WF509"]
    assert "`a`" in problems[0].message
    assert "`b`" in problems[1].message


def test_v09_a_required_default_counts_as_required() -> None:
    world = replace(WORLD, load=named({"two": "inputs { a required default = x }"}).__getitem__)
    assert found("call workflow two", world) == ["WF509"]


def test_v10_and_v11_hold_for_foreach() -> None:
    text = "foreach f { over = list max_parallel = 1 workflow = WF inputs = { note = x } }"

    assert found(text.replace("WF", "gone")) == ["WF510"]
    assert found(text.replace("WF", "child")) == ["WF511"]


def test_v12_without_a_provider_nothing_else_is_checked() -> None:
    rest = "scope = { a = b } ordered = true"
    assert found(each("lists", rest)) == ["WF512"]
    assert found(each("lists", "on_child_fail = skip_dependents")) == ["WF512"]


@pytest.mark.parametrize(
    ("over", "rest", "expected"),
    [
        ("list", "", []),
        ("list", "scope = {}", ["WF513"]),
        ("list", "scope = { a = b }", ["WF513"]),
        ("tickets", "filter = { a = b }", ["WF514"]),
        ("list", "ordered = true", ["WF515"]),
        ("list", "on_child_fail = skip_dependents", ["WF516"]),
        ("list", "ordered = true on_child_fail = skip_dependents", ["WF515"]),
        ("tickets", "", ["WF514", "WF517"]),
        ("list", "filter = { a = b }", ["WF518"]),
    ],
)
def test_v13_to_v18_providers_are_asked(over: str, rest: str, expected: list[str]) -> None:
    assert found(each(over, rest)) == expected


def test_v15_names_providers_that_know_an_order() -> None:
    (problem,) = check(accepted(each("list", "ordered = true")), WORLD)

    assert problem.hint == "leave out `ordered`, or go over `tickets`"


def test_v16_needs_no_provider() -> None:
    assert found(each("list", "on_child_fail = skip_dependents"), World()) == ["WF516"]


def test_v19_targets() -> None:
    assert found("meta { targets = [repo worktree] }") == []
    assert found("meta { targets = [repo moon mars] }") == ["WF519", "WF519"]
    assert found("meta { targets = [moon] }", World(targets=())) == []


def test_v20_only_the_first_circle_is_told() -> None:
    contents = {"a": "call workflow a", "b": "call workflow b"}
    world = World(load=named(contents).__getitem__)

    assert found("call workflow b call workflow a", world) == ["WF520"]


def test_v20_points_at_the_call_that_leads_into_the_circle() -> None:
    contents = {"a": "call workflow b", "b": "call workflow a"}
    world = World(load=named(contents).__getitem__)
    (problem,) = check(accepted("call x\ncall workflow a"), world)

    assert problem.span.line == 2
    assert problem.message.endswith("w -> a -> b -> a")


def test_v21_counts_from_wherever_a_chain_is_entered() -> None:
    """A chain that is fine from one place may be too long from another; it is searched once."""
    contents = {f"c{n}": f"call workflow c{n + 1}" for n in range(1, 5)} | {"c5": "call x"}
    known = named(contents | {"long": "call workflow c1"})
    loads: list[str] = []

    def counting(name: str) -> Definition:
        loads.append(name)
        return known[name]

    text = "call workflow c1 call workflow long"
    codes = found(text, World(load=counting))

    assert codes == ["WF521"]
    assert sorted(loads) == sorted(set(loads))


def test_v21_a_dense_graph_is_searched_in_no_time() -> None:
    """Five layers of forty workflows, each calling all of the next: 40 to the fifth paths."""
    layers = [[f"l{depth}x{n}" for n in range(40)] for depth in range(5)]
    contents = {
        name: " ".join(f"call workflow {below}" for below in next_layer)
        for layer, next_layer in zip(layers, [*layers[1:], []], strict=True)
        for name in layer
    }
    text = " ".join(f"call workflow {name}" for name in layers[0])

    assert found(text, World(load=named(contents).__getitem__)) == []


def test_v25_and_v26_actions() -> None:
    world = World(actions=("build", "ops/scan.md"))

    assert found('call build call "ops/scan.md" parallel { call build }', world) == []
    assert found('call test call "ops/other.md"', world) == ["WF525", "WF525"]
    assert found("parallel { call build call test }", world) == ["WF526"]


def test_v25_the_agent_of_an_on_fail_is_only_a_warning() -> None:
    """The original looks at it when files are checked, not before a run; it may never be needed."""
    world = World(actions=("build",))

    assert found("call build { on_fail = nobody }", world) == ["WF566"]
    assert found("script s { run = make on_fail = nobody }", world) == ["WF566"]
    assert found("call build { on_fail = continue }", world) == []


def test_v27_a_foreach_needs_a_provider_wherever_it_stands() -> None:
    """The same check as V12: ours needs no registry of its own before a run."""
    assert found(f"if x.m {{ {each('lists')} }}".replace("if x.m", "do")) == ["WF512"]
    assert found(f"always {{ {each('lists')} }}") == ["WF512"]


def test_v28_gate_types() -> None:
    world = World(gate_types=("human_review",))

    assert found("gate human_review { } gate deploy { }", world) == ["WF528"]
    assert found("call x gate quality_gate { source = x threshold = 1 }", world) == []


def test_v29_what_called_workflows_call_must_be_there_too() -> None:
    """Each name once; children of a foreach are not entered."""
    contents = {"a": "call workflow gone call workflow gone", "f": "call workflow lost"}
    known = named(contents)

    def load(name: str) -> Definition | str:
        return known.get(name, "no such file")

    text = "call workflow a foreach f { over = list max_parallel = 1 workflow = f }"
    problems = check(accepted(text), World(load=load, actions=()))

    assert [problem.message for problem in problems] == [
        "in `a`: the workflow `gone` cannot be loaded: no such file"
    ]


def test_v31_the_circle_of_a_workflow_that_is_not_stored_yet_is_found() -> None:
    """The definition at hand counts under its name, whatever is stored under it."""
    contents = {"a": "call workflow w", "w": "call x"}

    assert found("call workflow a", World(load=named(contents).__getitem__)) == ["WF520"]


def test_v30_findings_in_children_are_told_where_they_are_called() -> None:
    """Each child once, with the way to it in front; a circle ends the search."""
    contents = {
        "a": "call unheard call workflow b",
        "b": "parallel { call unknown } gate deploy { } call workflow a",
    }
    world = World(load=named(contents).__getitem__, actions=(), gate_types=())
    problems = check(accepted("call workflow a call workflow a"), world)
    served = [problem for problem in problems if problem.code != "WF520"]

    assert [problem.message for problem in served] == [
        "in `a`: no worker serves `unheard`",
        "in `a`: in `b`: no worker serves `unknown`",
        "in `a`: in `b`: nobody resolves gates of type `deploy`",
    ]
    assert {problem.span.column for problem in served} == {14}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ('name = n fast = "TRUE"', []),
        ('name = n fast = "{{x}}"', ["WF557"]),
        ("name = n fast = maybe", ["WF554"]),
        ("name = n fats = true", ["WF553"]),
    ],
)
def test_values_for_a_child_are_looked_at(inputs: str, expected: list[str]) -> None:
    assert found(f"call workflow child {{ inputs {{ {inputs} }} }}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call x while x.m { max_iterations = 1 call x }", []),
        ("call x while x.m { max_iterations = 1 do { call x } }", []),
        ("call x while x.m { max_iterations = 1 call y }", ["WF555"]),
        ("call x do { max_iterations = 1 call y } while x.m", ["WF555"]),
        ("call x while x.m { max_iterations = 1 call workflow gone }", ["WF508"]),
        ("call build while build.m { max_iterations = 1 call workflow leaf }", []),
        ("call x while x.m { max_iterations = 1 call workflow leaf }", ["WF555"]),
        ("while x.m { max_iterations = 1 }", ["WF503"]),
    ],
)
def test_a_loop_must_be_able_to_change_its_condition(text: str, expected: list[str]) -> None:
    assert found(text, World(load=load)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("do { max_iterations = 2 stuck_after = 1 call x } while x.m", []),
        ("do { max_iterations = 2 stuck_after = 1 call x } while x.m call y call z", ["WF556"]),
        ("do { do { max_iterations = 2 stuck_after = 1 call x } while x.m } call y", ["WF556"]),
        ("call x if x.m { do { max_iterations = 2 stuck_after = 1 call x } while x.m } call y", []),
        ("call x while x.m { max_iterations = 2 stuck_after = 1 call x } call y", []),
        ("do { max_iterations = 2 stuck_after = 2 call x } while x.m call y", []),
    ],
)
def test_steps_behind_a_certain_failure_are_never_reached(text: str, expected: list[str]) -> None:
    assert found(text, World()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('inputs { a } script s { run = "{{a}} {{ inputs.a }}" }', []),
        ('script s { run = "{{workflow_run_id}} {{prior_output}}" }', []),
        ('script s { run = "{{b}} {{b}}" }', ["WF557"]),
        ('script s { run = "x" env = { A = "{{b}}" } }', ["WF557"]),
        ('call plan script s { run = "{{b}}" }', []),
        ('call plan script s { run = "{{inputs.b}}" }', ["WF557"]),
        ('inputs { target } call plan script s { run = "{{targt}}" }', ["WF557"]),
        ('script s { run = "{{item.id}}" }', ["WF557"]),
        ('script s { run = "{{ }} {{a b}}" }', []),
        ('gate human_review { prompt = "{{ }}" }', []),
        ('gate human_review { prompt = "{{b}}" }', ["WF558"]),
    ],
)
def test_placeholders_must_be_able_to_resolve(text: str, expected: list[str]) -> None:
    """Behind a step that may export anything, only likely slips are told."""
    assert found(text, World()) == expected


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("f={{a}}; wc -l `basename $f` ${f%.md} $((f + 1))", []),
        ("echo `date` {{a}} # `{{a}}`", []),
        ("wc -l `basename {{a}}`", ["WF567"]),
        ("echo ${x:-{{a}}}", ["WF567"]),
        ("echo $(({{a}} + 1))", ["WF567"]),
        ("cat <<'E'\n{{a}}\nE\n", ["WF567"]),
        ("echo ${{a}}", ["WF567"]),
        ("echo `{{b}}`", ["WF557", "WF567"]),
    ],
)
def test_a_placeholder_stands_where_a_script_can_take_its_value(
    run: str, expected: list[str]
) -> None:
    """What would fail whenever the step begins is said before, in any branch of the workflow."""
    source = f"inputs {{ a flag boolean }} if flag {{ script s {{ run = {quote(run)} }} }}"
    assert sorted(found(source, World())) == expected


def test_very_many_signs_of_the_shell_are_not_looked_through() -> None:
    """The misplaced placeholder is the last thing in a text that takes long to read."""
    inputs = "inputs { a }"
    long = f'script s {{ run = "{{{{a}}}} {"$" * 30_000}" }}'
    misplaced = 'script t { run = "`{{a}}`" }'

    assert found(f"{inputs} {misplaced} {long}", World()) == ["WF567"]
    assert found(f"{inputs} {long} {misplaced}", World()) == []


def test_items_give_values_to_the_inputs_of_a_foreach() -> None:
    text = each("list", 'inputs = { a = "{{item.id}}" b = "{{other}}" }')
    assert found(text, World()) == ["WF557"]


def test_findings_come_from_the_top_of_the_text_to_its_end() -> None:
    """Whichever check found them."""
    problems = check(
        accepted("call unheard if nope.m { } inputs { dry_run } call workflow gone"), WORLD
    )
    offsets = [problem.span.offset for problem in problems]

    assert len(offsets) == 4
    assert offsets == sorted(offsets)
