"""Files that are judged together, and texts that are judged in spite of errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runkon_server.dsl.check import World
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.parser import parse
from runkon_server.dsl.validate import validate
from runkon_server.dsl.validate_set import validate_set
from support.workflows import sources, wrap
from support.worlds import WORLD, load


def judged(world: World, **contents: str) -> dict[str, str]:
    """The codes about each file, which is named like its workflow."""
    results = {
        f"flows/{name}.wf": parse(f"workflow {name} {{ {text} }}", f"flows/{name}.wf")
        for name, text in contents.items()
    }
    reports = validate_set(results, world)
    return {
        label.rpartition("/")[2].removesuffix(".wf"): " ".join(
            each.code for each in report.diagnostics if each.code != "WF601"
        )
        for label, report in reports.items()
    }


def test_workflows_of_a_set_may_call_each_other() -> None:
    """What is not among them is looked for in the world."""
    assert judged(
        World(load=load),
        top="call workflow middle if build.m { }",
        middle="inputs { name } call workflow leaf call workflow gone",
        alone="call workflow alone",
    ) == {"top": "WF509 WF501", "middle": "WF508", "alone": "WF520"}


def test_without_a_loader_the_others_are_unknown() -> None:
    assert judged(World(), a="call workflow gone if x.m { }") == {"a": ""}


def test_a_circle_and_a_long_chain_across_files() -> None:
    """V20 and V21."""
    chain = {f"c{n}": f"call workflow c{n + 1}" for n in range(6)}

    assert judged(World(), a="call workflow b", b="call workflow a") == {"a": "WF520", "b": "WF520"}
    assert judged(World(), **chain, c6="call x")["c0"] == "WF521"
    assert judged(World(), **chain, c6="call x")["c1"] == ""


def test_a_file_with_errors_says_so_itself() -> None:
    """Its callers conclude nothing from it, whether its name could be read or not."""
    broken = judged(
        World(load=load),
        top="call workflow bad if inner.m { }",
        bad="inputs { a } call 3x",
    )
    results = {
        "top.wf": parse("workflow top { call workflow bad }", "top.wf"),
        "bad.wf": parse("wrkflw", "bad.wf"),
    }
    reports = validate_set(results, World(load=load))

    assert broken == {"top": "", "bad": "WF201"}
    assert [each.code for each in reports["top.wf"].diagnostics] == []


def test_what_is_wrong_inside_a_member_is_told_there_only() -> None:
    """V30 repeats findings for callers, because they see nothing else of the called workflow."""
    world = replace(WORLD, actions=())

    assert judged(world, top="call workflow low", low="call x") == {"top": "", "low": "WF525"}
    assert judged(world, top="call workflow leaf") == {"top": "WF525"}


def test_names_that_two_files_declare_and_names_unlike_the_files() -> None:
    """IMP-35: the first file keeps the name."""
    results = {
        label: parse("workflow a { call x }", label) for label in ("a.wf", "other/a.wf", "b.wf")
    }
    reports = validate_set(results, World())
    texts = [each.message for report in reports.values() for each in report.diagnostics]

    assert texts == ["`a` is declared in a.wf already"] * 2
    (found,) = validate_set({"b.wf": results["b.wf"]}, World())["b.wf"].diagnostics
    assert found.code == "WF560"
    assert found.hint == "rename the file to `a.wf`, or the workflow to `b`"


def test_a_text_that_is_no_file_may_have_any_name() -> None:
    result = parse("workflow a { call x }", "standard input")

    assert validate_set({"standard input": result})["standard input"].diagnostics == ()


def test_strict_holds_for_every_member() -> None:
    results = {"b.wf": parse("workflow a { call x { retires = 1 } }", "b.wf")}
    report = validate_set(results, is_strict=True)["b.wf"]

    assert [each.severity for each in report.diagnostics] == [Severity.ERROR] * 2
    assert report.definition is None
    assert report.parsed is not None


def test_the_limit_on_what_is_shown_keeps_the_errors() -> None:
    """And the word that there is more."""
    text = wrap("call x { a = 1 } " * 120 + "if nope.x { }")
    report = validate(text, "w.wf")

    assert len(report.diagnostics) == 100
    assert [each.code for each in report.diagnostics][-2:] == ["WF409", "WF501"]
    assert has_errors(report.diagnostics)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call x { retries = many }\nif nope.m { }", "WF305 WF501"),
        ("call x { timeout = soon }\ncall workflow gone", "WF307 WF508"),
        ("while x.m { }\nscript s { run = [a] }\nif s.m { }", "WF303 WF304"),
        ("gate quality_gate { threshold = 1 }\ninputs { dry_run }", "WF303 WF552"),
        ("call workflow child { inputs = [a] }\ncall workflow child", "WF304 WF509"),
        ("foreach f { over = list max_parallel = 1 workflow = 'x y' }\ncall build", "WF101"),
        ("foreach f { over = [a] max_parallel = 0 workflow = leaf }\ncall build", "WF304 WF314"),
        ('call "../x.md"\nif x.m { }\ncall workflow gone', "WF308 WF508"),
        ("cal x\nif x.m { call workflow gone }", "WF204 WF508"),
        ("inputs { a, b }\nif b { call test { as = me } }", "WF208 WF502 WF564"),
        ("cal x\nif y.m { }\nif y.n { }", "WF204 WF501 WF501"),
        ('call { }\nscript y { run = "build" }\nif y.m { }', "WF201"),
        ('cal "ops/y.md"\nif y.m { }', "WF204"),
        (
            "call 3x\nwhile x.m { max_iterations = 2 call y }\ncall workflow child",
            "WF201 WF503 WF525",
        ),
        ("parallel { min_success = 9 call build { retries = x } }\ncall build", "WF551 WF305"),
        ("workflow v { call y }\ncall workflow gone", "WF209 WF508"),
    ],
)
def test_the_meaning_of_a_text_with_errors_is_checked_too(text: str, expected: str) -> None:
    """What its errors explain is not told again."""
    world = replace(WORLD, actions=(*(WORLD.actions or ()), "x"))
    report = validate(wrap(text), "w.wf", world)
    codes = " ".join(each.code for each in report.diagnostics)

    assert codes == expected
    assert report.definition is None
    assert report.parsed is None


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(sources(), st.data())
def test_whatever_is_left_of_a_text_can_be_judged(source: str, data: st.DataObject) -> None:
    """Texts with a piece cut out: only diagnostics come of it, and their places are in the text."""
    start = data.draw(st.integers(0, len(source)))
    end = data.draw(st.integers(start, min(len(source), start + 40)))
    text = source[:start] + source[end:]
    report = validate(text, "w.wf", WORLD)

    assert (report.definition is None) is has_errors(report.diagnostics)
    for each in report.diagnostics:
        assert 0 <= each.span.offset <= each.span.end <= len(text)
        assert each.render(report.source)
