"""Statements 133-140: the variables that tasks are given, and how texts are filled in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runkon_server.dsl.reserved import ENGINE_VARIABLES

if TYPE_CHECKING:
    from support.stage import Stage


async def test_133_without_contexts_there_is_nothing_before(stage: Stage) -> None:
    await stage.start("call a")
    given = await stage.offered("a")

    assert given.inputs["prior_context"] == ""
    assert given.prior_contexts == []
    assert "prior_output" not in given.inputs
    assert given.gate_feedback is None


async def test_134_what_the_engine_injects_wins_over_inputs(stage: Stage) -> None:
    """Also where it has nothing to say as yet. Other inputs pass through."""
    await stage.start(
        'inputs { workflow_run_id default = "mine" dry_run default = "maybe"'
        ' prior_output default = "mine" gate_feedback default = "mine" who required } call a',
        {"who": "ann"},
    )
    given = await stage.offered("a")

    assert not given.inputs.keys() & {"prior_output", "gate_feedback"}
    assert given.inputs["workflow_run_id"] == given.run_id
    assert given.inputs["dry_run"] == "false"
    assert given.inputs["who"] == "ann"


async def test_135_the_newest_export_of_a_name_counts(stage: Stage) -> None:
    """A step that does not export it changes nothing."""
    await stage.start(
        'script s { run = "x" } script t { run = "echo {{base_branch}}" } call a'
        ' script u { run = "x" } script v { run = "echo {{base_branch}}" }'
    )
    await stage.complete("s", raw_output=_block(base_branch="main"))
    first = await stage.offered("t")
    await stage.complete("t", raw_output=_block(other="x"))
    between = await stage.offered("a")
    await stage.complete("a")
    await stage.complete("u", raw_output=_block(base_branch="dev"))
    last = await stage.offered("v")

    assert first.environment["_RUNKON_1"] == "main"
    assert between.inputs["base_branch"] == "main"
    assert last.environment["_RUNKON_1"] == "dev"


def _block(**fields: object) -> str:
    return f"<<<FLOW_OUTPUT>>>{json.dumps(fields)}<<<END_FLOW_OUTPUT>>>"


async def test_136_exports_of_inputs_and_of_the_run_id_are_ignored(stage: Stage) -> None:
    await stage.start('inputs { who default = "ann" } script s { run = "x" } call a')
    await stage.complete("s", raw_output=_block(who="eve", workflow_run_id="1", fine="yes"))
    given = await stage.offered("a")

    assert given.inputs["who"] == "ann"
    assert given.inputs["workflow_run_id"] == given.run_id
    assert given.inputs["fine"] == "yes"


async def test_137_exports_of_names_that_the_engine_owns_are_ignored(stage: Stage) -> None:
    """All of them: the next step is given nothing that a step made up."""
    await stage.start('script s { run = "x" } call a')
    forged = dict.fromkeys(ENGINE_VARIABLES, "forged")
    await stage.complete("s", raw_output=_block(**forged, context="true context"))
    given = await stage.offered("a")

    assert "forged" not in {value for name, value in given.inputs.items() if name != "prior_output"}
    assert given.inputs["prior_context"] == "true context"
    assert given.inputs["dry_run"] == "false"
    assert given.gate_feedback is None


async def test_138_an_output_without_exports_does_not_hide_those_of_others(stage: Stage) -> None:
    """One that is no object, and one whose `markers` are none."""
    await stage.start("call a call b call c call d")
    await stage.complete("a", structured_output='{"x": "1"}')
    await stage.complete("b", structured_output='["x", "2"]')
    await stage.complete("c", structured_output='{"markers": 3, "x": "3", "y": "3"}')
    given = await stage.offered("d")

    assert given.inputs["x"] == "1"
    assert "y" not in given.inputs
    assert json.loads(given.inputs["prior_output"])["y"] == "3"


async def test_139_values_are_not_expanded_again(stage: Stage) -> None:
    """Neither on the way to a child, nor to a script."""
    await stage.put("child", "inputs { v required } call work")
    await stage.start(
        'inputs { a required  b default = "secret" }'
        ' call workflow child { inputs = { v = "<{{a}}>" } }'
        ' script s { run = "echo {{a}}" env = { E = "<{{a}}>" } }',
        {"a": "{{b}}"},
    )
    child = await stage.offered("work")
    await stage.complete("work")
    script = await stage.offered("s")

    assert child.inputs["v"] == "<{{b}}>"
    assert (script.environment["E"], script.environment["_RUNKON_1"]) == ("<{{b}}>", "{{b}}")


async def test_140_what_has_no_value_vanishes_stays_or_is_refused(stage: Stage) -> None:
    """From `env` it vanishes, in a child's inputs it stays; in a command it would be unsafe."""
    await stage.put("child", "inputs { v required } call work")
    await stage.start(
        'script s { run = "x" env = { E = "[{{nobody}}]" } }'
        ' call workflow child { inputs = { v = "[{{nobody}}]" } }'
        ' script t { run = "rm -rf {{nobody}}/x" retries = 2 }'
    )
    script = await stage.offered("s")
    await stage.complete("s")
    child = await stage.offered("work")
    await stage.complete("work")

    assert script.environment["E"] == "[]"
    assert child.inputs["v"] == "[{{nobody}}]"
    assert await stage.end() == "failed"
    assert (await stage.row("t")).error_code == "SCRIPT_INVALID"
    assert "{{nobody}}" in await stage.error()
    assert stage.times_given("t") == 0
