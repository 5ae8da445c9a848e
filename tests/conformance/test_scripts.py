"""Statements 101-111: scripts, which a worker executes and the server interprets.

Where processes matter, the text and the environment that the stage hands out go to the worker's
own runner, and what comes of that goes back to the stage.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from client.scripts.runners import processes_with

from runkon_client.worker.scripts import Script, ScriptLimits, ScriptRunner, View

if TYPE_CHECKING:
    from pathlib import Path

    from runkon_client.worker.scripts import ScriptOutcome
    from support.stage import Stage


class Machine:
    """Executes the scripts of a stage in a folder."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        view = View(folder=folder, is_writable=True)
        self._runner = ScriptRunner(view, limits=ScriptLimits(grace_s=0.2))

    async def work(self, name: str, times: int = 1) -> ScriptOutcome:
        """Execute the newest task of a script, once that many were handed out, and report it."""
        given = await self.stage.offered(name, times)
        script = Script(
            name=name,
            text=given.text,
            environment=given.environment,
            timeout_s=given.timeout_s,
        )
        outcome = await self._runner.run(script)
        if outcome.is_success:
            await self.stage.complete(name, raw_output=outcome.stdout)
        else:
            await self.stage.fail(
                name, outcome.failure_text(f"script {name}"), retryable=outcome.retryable
            )
        return outcome


@pytest.fixture
def machine(stage: Stage, tmp_path: Path) -> Machine:
    return Machine(stage, tmp_path.resolve())


async def test_101_a_block_in_the_output_gives_markers_and_context(stage: Stage) -> None:
    """Conditions see the markers, later steps the context and what was exported."""
    block = '<<<FLOW_OUTPUT>>>{"markers":["m"],"context":"did it","v":"1"}<<<END_FLOW_OUTPUT>>>'
    await stage.start('script s { run = "x" } if s.m { call a }')
    await stage.complete("s", raw_output=f"building\n{block}\n")
    given = await stage.offered("a")
    row = await stage.row("s")

    assert (row.role, row.status, row.markers, row.context) == (
        "script", "completed", ("m",), "did it",
    )  # fmt: skip
    assert json.loads(row.structured_output)["v"] == "1"
    assert (given.inputs["prior_context"], given.inputs["v"]) == ("did it", "1")


async def test_102_plain_output_gives_its_first_2000_characters_as_context(stage: Stage) -> None:
    await stage.start('script s { run = "x" }')
    await stage.complete("s", raw_output="ä" * 3_000)
    assert await stage.end() == "completed"
    row = await stage.row("s")

    assert (row.context, row.markers, row.structured_output) == ("ä" * 2_000, (), "")


async def test_103_inputs_become_variables_if_their_names_can(stage: Stage) -> None:
    """Behind the prefix RUNKON_, in upper case."""
    await stage.start(
        'inputs { who default = "ann" x-1 default = "no" n0_ default = "" } script s { run = "x" }'
    )
    given = await stage.offered("s")

    assert given.environment == {"RUNKON_WHO": "ann", "RUNKON_N0_": ""}


async def test_104_env_is_filled_in_and_cannot_touch_protected_names(stage: Stage) -> None:
    protected = ("PATH", "LD_PRELOAD", "PYTHONPATH", "RUBYLIB", "NODE_PATH", "GH_TOKEN")
    entries = " ".join(f'{name} = "x"' for name in protected)
    await stage.start(
        'inputs { who default = "ann" }'
        f'script s {{ run = "x" env = {{ A = "<{{{{who}}}}>" RUNKON_WHO = "own" {entries} }} }}'
    )
    given = await stage.offered("s")

    assert given.environment == {"A": "<ann>", "RUNKON_WHO": "own"}


@pytest.mark.parametrize("around", ["{}", "'{}'", '\\"{}\\"'], ids=["bare", "single", "double"])
async def test_105_a_value_is_one_literal_word_of_the_command(
    stage: Stage, machine: Machine, around: str
) -> None:
    """However the placeholder is quoted, no shell reads the value: a program prints it as it is."""
    value = "it's \"; touch touched; $(touch touched) `touch touched`"
    await stage.start(
        f'inputs {{ v required }} script s {{ run = "printf %s {around.format("{{v}}")}" }}',
        {"v": value},
    )
    outcome = await machine.work("s")

    assert outcome.stdout == value
    assert list(machine.folder.iterdir()) == []
    assert await stage.end() == "completed"
    assert (await stage.row("s")).context == value


async def test_106_much_output_is_no_deadlock(stage: Stage, machine: Machine) -> None:
    """128 KiB on each pipe, which is more than a pipe holds."""
    await stage.start('script s { run = "yes | head -c 131072 >&2; yes out | head -c 131072" }')
    outcome = await machine.work("s")

    assert len(outcome.stdout) == 131_072
    assert await stage.end() == "completed"
    assert (await stage.row("s")).context == "out\n" * 500


async def test_107_output_need_not_be_utf_8(stage: Stage, machine: Machine) -> None:
    """The exit code alone decides."""
    bytes_out = r"printf 'a\\377b'; printf '\\300' >&2"
    await stage.start(
        f'script s {{ run = "{bytes_out}" }}'
        f'script t {{ run = "{bytes_out}; exit 3" on_fail = continue }}'
    )
    await machine.work("s")
    await machine.work("t")

    assert await stage.end() == "completed"
    assert (await stage.row("s")).status == "completed"
    assert (await stage.row("t")).status == "failed"
    assert "exit code 3" in (await stage.row("t")).error


async def test_108_the_error_of_a_failure_holds_what_the_script_complained_of(
    stage: Stage, machine: Machine
) -> None:
    await stage.start('script s { run = "echo no disk >&2; exit 3" }')
    await machine.work("s")

    assert await stage.end() == "failed"
    row = await stage.row("s")
    assert row.status == "failed"
    assert row.error == "script s ended with exit code 3: no disk"
    assert "no disk" in await stage.error()


async def test_109_a_script_that_takes_too_long_is_killed(stage: Stage, machine: Machine) -> None:
    mark = f"RUNKON_MARK_{os.getpid()}_109"
    await stage.start(f'script s {{ run = "sleep 600" timeout = "1s" env = {{ {mark} = "1" }} }}')
    await machine.work("s")

    assert await stage.end() == "failed"
    row = await stage.row("s")
    assert row.status == "failed"
    assert "1 s" in row.error
    assert processes_with(mark) == []


async def test_110_a_timeout_kills_what_the_script_left_in_the_background(
    stage: Stage, machine: Machine
) -> None:
    """Also what is deaf to SIGTERM, and what began a session of its own."""
    mark = f"RUNKON_MARK_{os.getpid()}_110"
    deaf = "(trap '' TERM; sleep 600) & setsid sleep 600 & echo began; wait"
    await stage.start(f'script s {{ run = "{deaf}" timeout = "4s" env = {{ {mark} = "1" }} }}')
    outcome = await machine.work("s")

    assert (outcome.code, outcome.stdout) == ("SCRIPT_TIMEOUT", "began\n")
    assert processes_with(mark) == []
    assert await stage.end() == "failed"


async def test_111_a_script_that_fails_once_is_tried_again(stage: Stage, machine: Machine) -> None:
    """Both attempts are on one row."""
    run = "test -e flag || { touch flag; echo flaky >&2; exit 1; }; echo fine"
    await stage.start(f'script s {{ run = "{run}" retries = 1 }}')
    await machine.work("s")
    outcome = await machine.work("s", times=2)

    assert outcome.stdout == "fine\n"
    assert await stage.end() == "completed"
    row = await stage.row("s")
    assert (row.status, row.retry_count, row.context) == ("completed", 1, "fine\n")
    assert "flaky" in stage.given("s").retry_error
