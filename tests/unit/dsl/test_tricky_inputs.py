"""The tricky inputs of the language's specification, §8, by row.

Where an adopted improvement (IMP-n of §9) changes what the original does, the new outcome is
asserted and the docstring says which one it is.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from runkon_server.dsl import ast
from runkon_server.dsl.ast import AgentKind, AgentRef, InputType, StepField, StepMarker
from runkon_server.dsl.check import World, check
from runkon_server.dsl.substitute import Unresolved, substitute
from support.workflows import accepted, codes, only_node, places, read, wrap


def gate_timeout_s(value: str) -> int:
    gate = only_node(f"gate pr_checks {{ timeout = {value} }}")
    assert isinstance(gate, ast.Gate)
    return gate.timeout_s


def checked(text: str, children: dict[str, str] | None = None) -> list[str]:
    """Codes that the checker gives for the contents of a workflow."""
    known = {name: accepted(child) for name, child in (children or {}).items()}
    world = World(load=lambda name: known.get(name, "unknown"))
    return [each.code for each in check(accepted(text), world)]


def test_08_01_text_after_the_workflow_is_an_error() -> None:
    """IMP-2: the original takes the first workflow and ignores the rest."""
    assert places("workflow a { call x } workflow b { call y }") == [("WF202", 1, 23)]


def test_08_02_a_bad_character_after_the_end_is_an_error() -> None:
    assert places("workflow a { } ;") == [("WF101", 1, 16)]


def test_08_03_a_missing_brace_is_reported_at_the_end_of_the_file() -> None:
    result = read("workflow a { call x")

    (problem,) = result.diagnostics
    assert (problem.code, problem.expected) == ("WF203", ("}",))
    assert "the end of the file" in problem.message


def test_08_04_a_bare_duration_stops_at_its_unit() -> None:
    """Rejected at the word `h`, with the quoted form as the hint."""
    (problem,) = read("workflow w { gate pr_checks { timeout = 2h } }").diagnostics

    assert (problem.code, problem.span.column) == ("WF201", 42)
    assert problem.hint is not None
    assert '"2h"' in problem.hint


def test_08_05_gate_durations() -> None:
    """IMP-12: `ms` is part of the grammar now, but a gate counts whole seconds."""
    assert gate_timeout_s('"90m"') == 5400
    assert gate_timeout_s("3600") == 3600
    assert gate_timeout_s('"+5h"') == 18000
    assert gate_timeout_s('"5000ms"') == 5
    assert codes('gate pr_checks { timeout = "2d" }') == ["WF307"]
    assert codes('gate pr_checks { timeout = "300ms" }') == ["WF307"]


def test_08_06_a_while_block_behind_a_do_is_a_loop_of_its_own() -> None:
    """IMP-8: the original gives the `while` to the `do` in any case.

    With loop options inside the `do` it stays ambiguous: reported at the second brace.
    """
    do, loop = accepted("do { call x } while x.again { max_iterations = 3 call y }").body

    assert isinstance(do, ast.Do)
    assert isinstance(loop, ast.While)
    assert loop.condition == StepMarker(step="x", marker="again")
    text = "do { max_iterations = 2 call x } while x.again { max_iterations = 3 call y }"
    assert places(wrap(text)) == [("WF207", 1, 61)]


def test_08_07_a_plain_do_refuses_loop_options() -> None:
    assert codes("do { max_iterations = 2 call x }") == ["WF316"]


def test_08_08_a_do_while_ignores_output() -> None:
    """IMP-6: with a warning."""
    node = only_node('do { max_iterations = 2 output = "s" call x } while x.m')

    assert isinstance(node, ast.DoWhile)
    assert (node.condition, node.max_iterations) == (StepMarker(step="x", marker="m"), 2)
    assert codes('do { max_iterations = 2 output = "s" call x } while x.m') == ["WF301"]


def test_08_09_there_is_no_else() -> None:
    assert codes("if a.b { call x } else { call y }") == ["WF204"]


def test_08_10_keywords_are_names_except_meta_and_do() -> None:
    node = only_node("if gate.call { }")

    assert node == ast.If(condition=StepMarker(step="gate", marker="call"), body=())
    assert codes("if meta.x { }") == ["WF201"]


def test_08_11_an_if_ignores_options() -> None:
    """IMP-6: with a warning."""
    node = only_node("if ready { retires = 9 call x }")

    assert isinstance(node, ast.If)
    assert node.condition == ast.BoolInput(name="ready")
    assert codes("if ready { retires = 9 call x }") == ["WF301"]


def test_08_12_input_modifiers() -> None:
    """IMP-10 and IMP-11: contradictions warn; a boolean default must be true or false."""
    text = 'inputs { a  b required default = "x"  c boolean required  e default = "" }'
    a, b, c, e = accepted(text).inputs

    assert (a.required, a.default) == (True, None)
    assert (b.required, b.default) == (True, "x")
    assert (c.required, c.default, c.input_type) == (False, None, InputType.BOOLEAN)
    assert (e.required, e.default) == (False, "")
    assert codes(text) == ["WF324", "WF325"]
    assert codes('inputs { d boolean default = "maybe" }') == ["WF315"]
    assert codes('inputs { d boolean default = "TRUE" }') == []


def test_08_13_a_type_word_declares_a_second_input() -> None:
    """As in the original, but with a warning."""
    assert [each.name for each in accepted("inputs { a string }").inputs] == ["a", "string"]
    assert all(each.required for each in accepted("inputs { a string }").inputs)
    assert codes("inputs { a string }") == ["WF330"]


def test_08_14_inputs_are_not_separated_by_commas() -> None:
    assert places(wrap("inputs { a, b }")) == [("WF208", 1, 24)]


def test_08_15_quoted_agents_follow_one_rule() -> None:
    """IMP-20: `on_fail = "plan.md"` is a path, as it is after `call`; it was a name."""
    call = only_node('call "plan.md"')
    fallback = only_node('call p { on_fail = "plan.md" }')

    assert isinstance(call, ast.Call)
    assert isinstance(fallback, ast.Call)
    assert call.agent == AgentRef(kind=AgentKind.PATH, value="plan.md")
    assert fallback.on_fail == AgentRef(kind=AgentKind.PATH, value="plan.md")
    assert codes('call p { on_fail = "plan.md" }') == ["WF322"]
    assert codes('call "plan.md"') == []


def test_08_15_quoted_text_without_slash_is_a_name() -> None:
    """IMP-20: after `call` it was a path."""
    call = only_node('call "plan"')

    assert isinstance(call, ast.Call)
    assert call.agent == AgentRef(kind=AgentKind.NAME, value="plan")
    assert codes('call "plan"') == ["WF322"]


def test_08_16_agent_paths_stay_inside_the_repository() -> None:
    """IMP-21: absolute and empty paths are refused too."""
    assert codes('call "x/../y.md"') == ["WF308"]
    assert codes('call "x..y/z.md"') == []
    assert codes('call "/abs.md"') == ["WF308"]
    assert codes('call ""') == ["WF308"]


def test_08_17_on_fail_fail_is_the_default() -> None:
    """IMP-22: the original calls an agent named fail."""
    node = only_node("call p { on_fail = fail }")

    assert isinstance(node, ast.Call)
    assert node.on_fail is None
    assert codes("call p { on_fail = fail }") == ["WF323"]


def test_08_18_lists_numbers_and_unknown_options() -> None:
    """IMP-6: the unknown option gives a warning."""
    text = 'call p { with = [one "two" 3 a.b if,] retries = "+2" colour = red }'
    node = only_node(text)

    assert isinstance(node, ast.Call)
    assert node.with_ == ("one", "two", "3", "a.b", "if")
    assert node.retries == 2
    assert codes(text) == ["WF301"]


@pytest.mark.parametrize(
    "text", ["call p { retries = [1] }", 'meta { title = ["x"] }', 'call p { with = [["x"]] }']
)
def test_08_19_wrong_shapes_are_ordinary_errors(text: str) -> None:
    """IMP-36: the original crashes."""
    assert codes(text) == ["WF304"]


def test_08_20_options_stand_on_both_sides_of_an_inputs_block() -> None:
    """IMP-7: the repeated option gives a warning."""
    text = 'call workflow c { retries = 1 inputs { a = "1" b = 2 } retries = 3 }'
    node = only_node(text)

    assert node == ast.CallWorkflow(workflow="c", inputs=(("a", "1"), ("b", "2")), retries=3)
    assert codes(text) == ["WF302"]


def test_08_21_inputs_may_be_an_option_of_call_workflow() -> None:
    """IMP-9: the original ignores them."""
    node = only_node('call workflow c { inputs = { a = "1" } }')

    assert node == ast.CallWorkflow(workflow="c", inputs=(("a", "1"),))


def test_08_22_inputs_may_be_a_block_of_foreach() -> None:
    """IMP-9: the original refuses it."""
    node = only_node('foreach f { over = x max_parallel = 1 workflow = c inputs { a = "1" } }')

    assert isinstance(node, ast.ForEach)
    assert node.inputs == (("a", "1"),)


def test_08_23_commas_in_maps() -> None:
    """IMP-4: accepted behind entries; keywords and quoted keys stay errors."""
    node = only_node('script s { run = "x" env = { A = "1", B = "2" } }')

    assert isinstance(node, ast.Script)
    assert node.env == (("A", "1"), ("B", "2"))
    assert codes('script s { run = "x" env = { , A = "1" } }') == ["WF208"]
    assert codes('script s { run = "x" env = { A = "1",, B = "2" } }') == ["WF208"]
    assert codes('script s { run = "x" env = { script = "1" } }') == ["WF201"]
    assert codes('script s { run = "x" env = { "A" = "1" } }') == ["WF201"]


@pytest.mark.parametrize("timeout", ['"30s"', "30", '"30"'])
def test_08_24_script_timeouts_have_units_too(timeout: str) -> None:
    """IMP-12: the original takes plain seconds only."""
    node = only_node(f'script s {{ run = "x" timeout = {timeout} }}')

    assert isinstance(node, ast.Script)
    assert node.timeout_s == 30


def test_08_25_a_parallel_block_holds_calls_only() -> None:
    text = 'parallel { fail_fast = false call a { if = "s.m.n" retries = 0 } call workflow b }'
    assert places(wrap(text)) == [("WF209", 1, 84)]


def test_08_25_parallel_options() -> None:
    """IMP-13: `fail_fast = yes` is an error, not `false`."""
    node = only_node('parallel { fail_fast = false call a { if = "s.m.n" retries = 0 } }')

    assert isinstance(node, ast.Parallel)
    assert not node.fail_fast
    assert node.calls[0].condition == StepMarker(step="s", marker="m.n")
    assert node.calls[0].retries == 0
    assert codes("parallel { fail_fast = yes call a }") == ["WF315"]


def test_08_26_options_of_a_block_come_first() -> None:
    assert codes("parallel { call a fail_fast = false }") == ["WF205"]


def test_08_27_any_name_is_a_gate_type() -> None:
    """IMP-6: the unknown option gives a warning."""
    text = 'gate deploy_window { prompt = "ok?" channel = "ops" options = ["go" "stop" "go"] }'
    node = only_node(text)

    assert isinstance(node, ast.Gate)
    assert (node.gate_type, node.name, node.timeout_s) == ("deploy_window", "deploy_window", 86_400)
    assert node.options == (("go", "go"), ("stop", "stop"))
    assert codes(text) == ["WF301"]


def test_08_28_gate_options_from_a_step() -> None:
    node = only_node("gate human_review { options = scan.findings }")
    quoted = only_node('gate human_review { options = "a.b.c" }')

    assert isinstance(node, ast.Gate)
    assert isinstance(quoted, ast.Gate)
    assert node.options == StepField(step="scan", field="findings")
    assert quoted.options == StepField(step="a", field="b.c")
    assert codes("gate human_review { options = scan }") == ["WF313"]
    assert codes("gate human_review { options = a.b.c }") == ["WF201"]


def test_08_29_quality_gates() -> None:
    """IMP-16: the options that mean nothing give warnings."""
    text = 'gate quality_gate { source = r threshold = 80 timeout = "junk" mode = odd }'

    assert only_node(text) == ast.QualityGate(name="quality_gate", source="r", threshold=80)
    assert codes(text) == ["WF321", "WF321"]
    assert codes("gate quality_gate { source = r threshold = 101 }") == ["WF310"]
    assert codes("gate quality_gate { source = r threshold = 0.5 }") == ["WF201"]
    assert codes("gate quality_gate { source = r threshold = 1 options = [a] }") == ["WF312"]


def test_08_30_always_blocks_add_up() -> None:
    definition = accepted("always { call a } call b always { call c }")

    assert [node.agent.value for node in definition.body if isinstance(node, ast.Call)] == ["b"]
    assert [node.agent.value for node in definition.always if isinstance(node, ast.Call)] == [
        "a",
        "c",
    ]
    assert codes("always { x = 1 }") == ["WF316"]


def test_08_31_the_last_title_counts() -> None:
    """IMP-5 and IMP-7: unknown escapes and the repeated key give warnings."""
    text = r'meta { title = "a\qb\u0041" title = "z" }'

    assert accepted(text).title == "z"
    assert codes(text) == ["WF104", "WF302"]
    assert accepted(r'meta { title = "a\qb\u0041" }').title == "aqbu0041"


@pytest.mark.parametrize("text", ["# note\nworkflow w { }", "-- note\nworkflow w { }"])
def test_08_32_foreign_comments_are_errors(text: str) -> None:
    """IMP-3: with a hint, and without a second error for the words of the comment."""
    (problem,) = read(text).diagnostics

    assert (problem.code, problem.span.line, problem.span.column) == ("WF101", 1, 1)
    assert problem.hint == "comments start with `//`"


def test_08_32_a_byte_order_mark_is_skipped() -> None:
    """IMP-3: the original takes it for an unexpected character."""
    result = read("\ufeffworkflow w { call x }")

    assert result.definition is not None
    assert result.diagnostics == ()


def test_08_33_nested_steps_of_a_child_count_as_produced() -> None:
    """IMP-37: in the original, `inner` is an error, because it is not top-level in the child."""
    children = {"child": "call top  do { call inner }"}
    text = "call workflow child if top.m { } if child.m { } if inner.m { }"

    assert checked(text, children) == []
    assert checked(f"{text} if other.m {{ }}", children) == ["WF501"]


def test_08_34_results_of_a_branch_are_assumed() -> None:
    assert checked("call s if s.m { call late } if late.m { }") == []


def test_08_35_siblings_do_not_count() -> None:
    assert checked('parallel { call p call q { if = "p.m" } }') == ["WF505"]


def test_08_36_gates_produce_nothing() -> None:
    assert checked("gate human_review { } if human_review.ok { }") == ["WF501"]


def test_08_37_circles_are_found_through_foreach_and_always() -> None:
    each = "foreach f { over = list max_parallel = 1 workflow = c }"
    children = {"a": "call workflow b", "b": each, "c": "call x always { call workflow a }"}
    known = {name: replace(accepted(text), name=name) for name, text in children.items()}

    (problem,) = check(known["a"], World(load=lambda name: known[name]))
    assert problem.code == "WF520"
    assert problem.message.endswith("a -> b -> c -> a")


@pytest.mark.parametrize(("length", "expected"), [(6, []), (7, ["WF521"])])
def test_08_37_calls_may_be_five_deep(length: int, expected: list[str]) -> None:
    """IMP-28: one limit, five below the root, for check and run; the original's check has four.

    The last of the chain does not exist, which nobody but its caller minds.
    """
    chain = [f"w{number}" for number in range(length)]
    known = {
        name: replace(accepted(f"call workflow {below}"), name=name)
        for name, below in pairwise(chain)
    }

    found = check(known["w0"], World(load=lambda name: known.get(name, "unknown")))
    assert [each.code for each in found] == expected


def test_08_38_substitution_is_one_pass() -> None:
    """IMP-34: blanks around a name are trimmed, so `{{ a }}` resolves."""
    text, values = "{{a}}-{{ a }}-{{b", {"a": "{{c}}"}

    assert substitute(text, values, unresolved=Unresolved.STRIP) == "{{c}}-{{c}}-{{b"
    assert substitute(text, values, unresolved=Unresolved.KEEP) == "{{c}}-{{c}}-{{b"
