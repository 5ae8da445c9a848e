"""`runkon worker` as a process beside a real replica: scripts, items, gates, pull requests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil
import pytest
from client.github.forge import review, serve_forge
from e2e.conftest import Place

from runkon_client import Client
from runkon_client.values import GateState, RunStatus, StepStatus
from support.clusters import replicas
from support.postgres import cloned
from support.waiting import eventually
from support.worker_command import worker_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path


OFFERS = """
from datetime import timedelta
from pathlib import Path
from runkon_client import ActionOutput, Actions
from runkon_client.worker import Approved, Item, Pending

actions = Actions()
HERE = Path(__file__).parent

@actions.items("letters")
def letters(task):
    for name in task.scope["letters"].split():
        before = () if name == "a" else ("a",)
        yield Item(id=name, ref=name.upper(), context={"size": "big"}, depends_on=before)

@actions.action("write")
def write(task):
    with HERE.joinpath("written").open("a") as file:
        file.write(task.inputs["letter"])
    return ActionOutput(context=task.inputs["letter"])

@actions.gate("open_door")
async def open_door(task):
    if HERE.joinpath("open").exists():
        return Approved(feedback="come in")
    HERE.joinpath("knocked").touch()
    return Pending(note="it is shut", delay=timedelta(seconds=1))
"""


def worker(
    place: Place,
    *words: str,
    is_killed: bool = False,
    environment: Mapping[str, str] | None = None,
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A worker of the test's namespace; at the end it drains, unless the test kills it."""
    return worker_command(
        place.address, place.namespace, *words, is_killed=is_killed, environment=environment
    )


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with one script file."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    folder.joinpath("greet.sh").write_text(
        "#!/bin/sh\n"
        'echo "Hello, $1!"\n'
        "echo '<<<FLOW_OUTPUT>>>'\n"
        """printf '{"markers": ["greeted"], "context": "greeted %s", "who": "world"}\\n' "$2"\n"""
        "echo '<<<END_FLOW_OUTPUT>>>'\n",
        encoding="utf-8",
    )
    folder.joinpath("greet.sh").chmod(0o755)
    return folder


async def test_105_scripts_run_and_tell_the_run_what_they_found(
    client: Client, place: Place, scripts: Path
) -> None:
    """Hostile inputs stay words, markers steer, exports and context reach the next script."""
    source = """workflow w {
      inputs { name required  id default = "7" }
      script greet { run = "greet.sh {{name}} {{id}}" }
      if greet.greeted {
        script echo { run = "printf '%s|%s|%s' {{who}} \\"{{name}}\\" \\"$RUNKON_ID-$STAGE\\""
                      env = { STAGE = "<{{id}}>" } }
      }
    }"""
    hostile = "$(touch pwned) `id` ; rm -rf . \" ' \n {{who}}"
    with worker(place, "--allow-scripts", str(scripts), "--script-write"):
        run = await client.start_run(source=source, inputs={"name": hostile})
        ended = await run.wait()
    steps = {step.step_name: step async for step in run.steps()}

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert steps["greet"].markers == ("greeted",)
    assert steps["greet"].context == "greeted 7"
    assert steps["echo"].context == f"world|{hostile}|7-<7>"
    assert [path.name for path in scripts.glob("*")] == ["greet.sh"]  # noqa: ASYNC240 - local


async def test_111_a_script_is_retried_and_its_failure_tells_why(
    client: Client, place: Place, scripts: Path
) -> None:
    """The first attempt fails, the second finds what it left; the last word is standard error."""
    source = """workflow w {
      script flaky { run = "test -e was-here || { touch was-here; echo not yet >&2; exit 3; }"
                     retries = 1 }
      script bad { run = "echo broken >&2; exit 4" on_fail = continue }
      script slow { run = "sleep 600 & sleep 600" timeout = "1s" }
    }"""
    with worker(place, "--allow-scripts", str(scripts), "--script-write"):
        run = await client.start_run(source=source)
        ended = await run.wait()
    steps = {step.step_name: step async for step in run.steps()}

    assert steps["flaky"].status is StepStatus.COMPLETED
    assert steps["flaky"].retry_count == 1
    assert "exit code 4: broken" in steps["bad"].step_error
    assert ended.status is RunStatus.FAILED
    assert "1 s" in steps["slow"].step_error


async def test_a_cancelled_run_ends_its_script(client: Client, place: Place, scripts: Path) -> None:
    """Every process of it is gone by the time that the run is cancelled."""
    pid = scripts / "pid"
    source = """workflow w {
      script slow { run = "echo $$ > pid.new; mv pid.new pid; sleep 600" }
    }"""

    async def began() -> bool:
        return pid.exists()

    with worker(place, "--allow-scripts", str(scripts), "--script-write", "--sandbox", "none"):
        run = await client.start_run(source=source)
        await eventually(began, "the script runs")
        await run.cancel()
        ended = await run.wait()
        number = int(pid.read_text(encoding="utf-8"))

        assert ended.status is RunStatus.CANCELLED
        assert not psutil.pid_exists(number)


async def test_a_worker_finds_the_items_of_a_foreach(
    client: Client, place: Place, tmp_path: Path
) -> None:
    """In the order that they depend on each other, with what the provider says of each."""
    tmp_path.joinpath("offers.py").write_text(OFFERS, encoding="utf-8")
    await client.put_workflow(
        "workflow one { inputs { letter required  size required } call write }"
    )
    source = """workflow w {
      foreach all {
        over = letters  max_parallel = 1  workflow = one  ordered = true
        scope = { letters = "b a" }
        inputs = { letter = "{{item.id}}" size = "{{item.size}}" }
      }
    }"""
    with worker(place, str(tmp_path / "offers.py")):
        run = await client.start_run(source=source)
        ended = await run.wait()

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert tmp_path.joinpath("written").read_text(encoding="utf-8") == "ab"


async def test_a_worker_looks_after_gates_of_its_own(
    client: Client, place: Place, tmp_path: Path
) -> None:
    """The first look leaves the gate pending; when the door is open, a later one opens it."""
    tmp_path.joinpath("offers.py").write_text(OFFERS, encoding="utf-8")

    async def knocked() -> bool:
        return tmp_path.joinpath("knocked").exists()

    with worker(place, str(tmp_path / "offers.py")):
        run = await client.start_run(source="workflow w { gate open_door { name = door } }")
        await eventually(knocked, "the worker has looked")
        pending = await run.gate("door").get()
        tmp_path.joinpath("open").touch()
        ended = await run.wait()
    gate = await run.gate("door").get()

    assert pending.state is GateState.PENDING
    assert ended.status is RunStatus.COMPLETED, ended.error
    assert (gate.state, gate.resolved_by, gate.feedback) == (
        GateState.APPROVED, "machine", "come in"
    )  # fmt: skip


async def test_a_worker_looks_after_pull_requests(client: Client, place: Place) -> None:
    """An approval of the head by another person, then checks; each step asks with its token."""
    source = """workflow w {
      inputs { pull_request required }
      gate pr_approval { name = reviewed min_approvals = 1 as = bot }
      gate pr_checks { name = green }
    }"""
    with serve_forge() as forge:
        forge.tokens = {"ghp_default", "ghp_bot"}
        forge.pull(reviews=[review("ada", "APPROVED"), review("bo", "APPROVED", "c2")])
        forge.checks([("ci", "completed", "success")])
        environment = {
            "GITHUB_API_URL": forge.url,
            "GITHUB_TOKEN": "ghp_default",
            "RUNKON_GITHUB_TOKEN_BOT": "ghp_bot",
            "NO_PROXY": "127.0.0.1",
        }
        with worker(place, "--github", environment=environment):
            run = await client.start_run(source=source, inputs={"pull_request": "o/r#7"})
            ended = await run.wait()
    reviewed = await run.gate("reviewed").get()

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert (reviewed.state, reviewed.resolved_by) == (GateState.APPROVED, "machine")
    assert {asked.token for asked in forge.asked} == {"ghp_bot", "ghp_default"}


async def test_31_a_worker_that_is_killed_takes_its_script_along(
    postgres_server: str, template_database: str, scripts: Path
) -> None:
    """The same attempt is run again elsewhere, when the first delivery's lease has ended."""
    began = scripts / "began"
    source = """workflow w {
      script once { run = "echo $$ >> began; test $(wc -l < began) -gt 1 || sleep 600" }
    }"""

    async def has_begun() -> bool:
        return began.exists()

    offer = ("--allow-scripts", str(scripts), "--script-write", "--sandbox", "none")
    with (
        cloned(postgres_server, template_database) as database,
        replicas(database, 1, "--task-lease", "5") as (replica,),
        contextlib.ExitStack() as workers,
    ):
        place = Place(replica.address, "test")
        first = workers.enter_context(worker(place, *offer, is_killed=True))
        async with Client(replica.address, namespace="test") as client:
            run = await client.start_run(source=source)
            await eventually(has_begun, "the script runs")
            workers.enter_context(worker(place, *offer))
            first.kill()
            ended = await run.wait()
            (step,) = [step async for step in run.steps()]
    number, _ = map(int, began.read_text(encoding="utf-8").split())

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert step.retry_count == 0
    assert not psutil.pid_exists(number)
