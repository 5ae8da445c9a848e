"""Statements 34-44: what is found before a run begins, and the values it begins with.

What the server knows is checked at the start of a run. Workers, providers and other workflows may
come and go until a step needs them: a check that is told of them speaks of them beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.dsl.ast import Definition, Input, InputType
from runkon_server.dsl.check import World, check
from runkon_server.dsl.parser import parse
from runkon_server.dsl.validate_set import validate_set
from runkon_server.errors import InputsInvalidError
from runkon_server.runtime.inputs import complete_inputs
from support.stage import Refused
from support.workflows import accepted
from support.worlds import named

if TYPE_CHECKING:
    from support.stage import Stage

EACH = "foreach each { over = tickets max_parallel = 1 workflow = one }"


def problems(text: str, world: World) -> list[str]:
    """What a check says that knows this world."""
    return [each.message for each in check(accepted(text), world)]


def test_034_an_action_that_nobody_serves_is_named() -> None:
    """In a parallel block too; a worker that takes every action serves it."""
    text = "call build call deploy parallel { call release }"
    assert problems(text, World(actions=("build",))) == [
        "no worker serves `deploy`",
        "no worker serves `release`",
    ]
    assert problems(text, World()) == []


async def test_034_a_worker_that_takes_everything_takes_it(stage: Stage) -> None:
    """The worker of a stage is one."""
    await stage.start("call never-heard-of")
    await stage.complete("never-heard-of")
    assert await stage.end() == "completed"


def test_035_a_provider_that_nobody_is_is_named() -> None:
    world = World(load=named({"one": "call a"}).__getitem__, providers={})
    (problem,) = problems(EACH, world)
    assert "`tickets`" in problem


def test_036_a_gate_type_that_nobody_resolves_is_named() -> None:
    """A quality gate needs nobody."""
    text = (
        "gate human_review {} gate deploy {} call a gate quality_gate { source = a threshold = 70 }"
    )
    (problem,) = problems(text, World(gate_types=("human_review",)))
    assert "`deploy`" in problem


def test_037_a_problem_of_a_sub_workflow_is_told_with_its_name() -> None:
    world = World(load=named({"sub": "call deploy"}).__getitem__, actions=())
    assert problems("call workflow sub", world) == ["in `sub`: no worker serves `deploy`"]


def test_038_a_workflow_that_calls_itself_is_a_circle() -> None:
    """Also by way of others, and of a foreach."""
    known = named({"one": "call workflow two", "two": "call workflow w", "w": "call a"})
    world = World(load=known.__getitem__)
    (direct,) = problems("call workflow w", world)
    (indirect,) = problems("call workflow one", world)
    (item,) = problems(EACH, world)
    circle = "workflows call each other in a circle: "
    assert direct == f"{circle}w -> w"
    assert indirect == item == f"{circle}w -> one -> two -> w"


async def test_039_a_workflow_that_is_not_there_is_named(stage: Stage) -> None:
    """It may come until the call begins; then the step fails, and is not tried again."""
    await stage.start("call workflow gone { retries = 3 } call a")
    assert await stage.end() == "failed"
    row = await stage.row("workflow:gone")
    assert (row.status, row.error_code) == ("failed", "WORKFLOW_NOT_FOUND")
    assert "gone" in row.error


def test_039_a_check_that_knows_all_workflows_names_it() -> None:
    """Files that are checked together know each other."""
    texts = {"w.wf": "workflow w { call workflow gone }", "o.wf": "workflow o { call a }"}
    read = {label: parse(text, label) for label, text in texts.items()}
    reports = validate_set(read, World(load=lambda _: "no such file"))
    (problem,) = reports["w.wf"].diagnostics
    assert "`gone`" in problem.message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("call a call {", "DSL_SYNTAX"),
        ("call a if nowhere.m { call b }", "DSL_SEMANTIC"),
        ("call a { retries = 21 }", "DSL_LIMIT"),
    ],
)
async def test_041_a_workflow_with_errors_makes_no_run(
    stage: Stage, body: str, reason: str
) -> None:
    """Hence no row, no event and no lease."""
    with pytest.raises(Refused, match=reason):
        await stage.start(body)
    assert not await stage.has_run()


async def test_041_every_error_is_told(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"(?s)`one`.*`two`"):
        await stage.start("if one.m { call a } if two.m { call a }")
    assert not await stage.has_run()


@pytest.mark.parametrize("declared", ["name", "name required", "name required default = x"])
async def test_043_a_required_input_has_to_be_given(stage: Stage, declared: str) -> None:
    """Whether it has a default or not; what is given is then what the run has."""
    with pytest.raises(Refused, match=r"INPUTS_INVALID.*name"):
        await stage.start(f"inputs {{ {declared} }} call a")
    assert not await stage.has_run()
    await stage.start(f"inputs {{ {declared} }} call a", {"name": "true"})
    await stage.complete("a")
    assert stage.given("a").inputs["name"] == "true"


def test_043_booleans_are_no_exception() -> None:
    """A text cannot declare such a one (it is a warning there), a definition can."""
    definition = Definition(
        name="w", inputs=(Input(name="flag", required=True, input_type=InputType.BOOLEAN),)
    )
    with pytest.raises(InputsInvalidError, match="flag"):
        complete_inputs(definition, {})


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ("flag boolean", None, "false"),
        ("flag boolean default = true", None, "true"),
        ("flag boolean default = true", "false", "false"),
        ("flag boolean", "TRUE", "TRUE"),
        ("flag default = x", None, "x"),
        ("flag default = x", "", ""),
    ],
)
async def test_044_an_input_that_is_not_given_has_its_default(
    stage: Stage, declared: str, given: str | None, expected: str
) -> None:
    """That of a boolean is `false`; what the caller says always counts."""
    await stage.start(f"inputs {{ {declared} }} call a", {} if given is None else {"flag": given})
    await stage.complete("a")
    assert await stage.end() == "completed"
    assert stage.given("a").inputs["flag"] == expected
