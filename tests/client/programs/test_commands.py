"""Programs as actions: what they are given, what their output becomes, how they end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from client.workers import cancel, lease_of, reported, working

from runkon.v1 import types_pb2, workers_pb2
from runkon_client import Actions
from runkon_client.worker.programs import CommandLine, add_program
from runkon_client.worker.programs.output import read_output
from support.waiting import eventually


def action_lease(name: str = "act", **fields: Any) -> workers_pb2.TaskLease:
    values: dict[str, Any] = {"idempotency_key": "r/b.0001", "fence": 7, "step_name": name}
    return lease_of(workers_pb2.TASK_KIND_ACTION, name, **(values | fields))


def programs(folder: Path, **commands: str) -> Actions:
    actions = Actions()
    for name, text in commands.items():
        add_program(actions, name, CommandLine(text=text, folder=folder))
    return actions


async def result_of(folder: Path, text: str, **fields: Any) -> types_pb2.StepResult:
    return (await reported(programs(folder, act=text), action_lease(**fields))).result


async def failure_of(folder: Path, text: str) -> workers_pb2.TaskFailure:
    return (await reported(programs(folder, act=text), action_lease())).failure


async def test_a_program_gets_its_task_on_standard_input(tmp_path: Path) -> None:
    """All of it, as one JSON object."""
    snippet = workers_pb2.Snippet(name="style", text="be brief")
    contexts = '[{"step": "plan", "context": "todo", "iteration": 1}]'
    result = await result_of(
        tmp_path,
        "cat",
        inputs={"ticket": "T-1 \n ü"},
        attempt=2,
        snippets=[snippet],
        prior_contexts=contexts,
        dry_run=True,
    )
    document = json.loads(result.structured_output)

    assert document["inputs"] == {"ticket": "T-1 \n ü"}
    assert (document["action"], document["run_id"], document["attempt"]) == ("act", "r", 2)
    assert (document["idempotency_key"], document["fence"]) == ("r/b.0001", 7)
    assert document["snippets"] == [{"name": "style", "text": "be brief"}]
    assert [each["context"] for each in document["prior_contexts"]] == ["todo"]
    assert (document["dry_run"], document["output_schema"]) == (True, None)


async def test_a_program_gets_its_task_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the worker's own variables; no value is ever looked at by the shell."""
    monkeypatch.setenv("RUNKON_TEST_OWN", "mine")
    hostile = "$(touch pwned) `id` ; rm -rf . \" ' \n"
    result = await result_of(
        tmp_path,
        """printf '%s|%s|%s|%s|%s' "$RUNKON_INPUT_TICKET" "$RUNKON_TEST_OWN" """
        """"$RUNKON_IDEMPOTENCY_KEY" "$RUNKON_DRY_RUN" "$PWD" """,
        inputs={"ticket": hostile, "no-name": "x"},
    )

    assert result.result_text == f"{hostile}|mine|r/b.0001|false|{tmp_path}"
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a local folder


async def test_an_input_that_no_environment_can_hold_is_on_standard_input(tmp_path: Path) -> None:
    count = 'printf %s "${#RUNKON_INPUT_BIG}-"; wc -c'
    result = await result_of(tmp_path, count, inputs={"big": "x" * 200_000})

    told, length = result.result_text.split("-")
    assert told == "0"
    assert int(length) > 200_000


async def test_an_input_that_no_environment_can_hold_is_in_a_file(tmp_path: Path) -> None:
    """One over 128 KiB, and those with which all would be over 1 MiB; gone afterwards."""
    large = {f"part{n}": str(n) * 120_000 for n in range(10)} | {"big": "x" * 200_000, "small": "s"}
    show = (
        'wc -c < "$RUNKON_INPUT_BIG_FILE"; env | grep -c "^RUNKON_INPUT_PART._FILE=";'
        ' printf " %s %s" "${RUNKON_INPUT_SMALL_FILE-none}" "$RUNKON_INPUT_BIG_FILE"'
    )
    result = await result_of(tmp_path, show, inputs=large)

    size, parts, small, path = result.result_text.split()
    assert (size, parts, small) == ("200000", "2", "none")
    assert not Path(path).exists()  # noqa: ASYNC240 - a local file


async def test_one_json_object_is_the_structured_output(tmp_path: Path) -> None:
    """With markers and context, as from a mapping in Python."""
    text = """echo '{"markers": ["ready"], "context": "done", "count": 3}'"""
    result = await result_of(tmp_path, text)

    assert (list(result.markers), result.context) == (["ready"], "done")
    assert json.loads(result.structured_output)["count"] == 3
    assert int(result.metadata["duration_ms"]) >= 0


@pytest.mark.parametrize(
    "text",
    [
        "just words",
        '{"markers": "no list"}',
        '{"context": 3}',
        "{broken",
        "[1, 2]",
        '{"a": ' * 100_000,
        "",
    ],
)
def test_the_beginning_of_any_other_text_is_the_context(text: str) -> None:
    output = read_output(text, {})

    assert (output.result_text, output.context) == (text, text.strip()[:2_000])
    assert (output.markers, output.raw_output, output.structured_output) == ((), "", None)


def test_a_block_is_left_to_the_server() -> None:
    text = 'words\n<<<FLOW_OUTPUT>>>\n{"markers": ["m"]}\n<<<END_FLOW_OUTPUT>>>\n'
    output = read_output(text, {})

    assert (output.raw_output, output.context, output.result_text) == (text, "", "")


async def test_a_failure_tells_the_exit_code_and_standard_error(tmp_path: Path) -> None:
    failure = await failure_of(tmp_path, "echo no such ticket >&2; exit 3")

    assert failure.message == "program act ended with exit code 3: no such ticket"
    assert (failure.retryable, failure.code) == (True, "PROGRAM_FAILED")


async def test_exit_code_65_says_that_another_attempt_would_fail_too(tmp_path: Path) -> None:
    failure = await failure_of(tmp_path, "exit 65")

    assert not failure.retryable


async def test_a_cancelled_program_ends_with_all_that_it_started(tmp_path: Path) -> None:
    actions = programs(tmp_path, act="sleep 600 & echo $! > child; sleep 600")
    async with working(actions) as (_, work, _running):
        stream = await work.next_stream()
        stream.send(leases=[action_lease()])

        async def started() -> bool:
            child = tmp_path / "child"
            return child.exists() and child.read_text().endswith("\n")

        await eventually(started, "the program has begun")
        cancel(stream, "t/0", workers_pb2.CANCEL_REASON_TIMEOUT)
        report = await stream.next_report()
    child = int(tmp_path.joinpath("child").read_text())

    assert report.WhichOneof("outcome") == "cancelled"
    assert not psutil.pid_exists(child)


async def test_a_fallback_program_serves_every_name(tmp_path: Path) -> None:
    actions = Actions()
    add_program(actions, "*", CommandLine(text='printf %s "$RUNKON_ACTION"', folder=tmp_path))
    report = await reported(actions, action_lease("anything"))

    assert report.result.result_text == "anything"


async def test_a_program_that_reads_nothing_and_one_that_stops_reading_are_fine(
    tmp_path: Path,
) -> None:
    inputs = {"big": "x" * 900_000}

    assert (await result_of(tmp_path, "echo ok", inputs=inputs)).result_text == "ok\n"
    assert (await result_of(tmp_path, "head -c 1", inputs=inputs)).result_text == "{"


async def test_too_much_output_ends_the_program(tmp_path: Path) -> None:
    failure = await failure_of(tmp_path, "yes")

    assert (failure.code, failure.retryable) == ("OUTPUT_LIMIT", False)


async def test_programs_run_beside_each_other(tmp_path: Path) -> None:
    """Each waits for the other's file."""
    one = "touch one; while ! test -e two; do sleep 0.01; done"
    two = "touch two; while ! test -e one; do sleep 0.01; done"
    actions = programs(tmp_path, one=one, two=two)
    async with working(actions) as (_, work, _running):
        stream = await work.next_stream()
        second = action_lease("two")
        second.task_id, second.token = "u", "u/0"
        stream.send(leases=[action_lease("one"), second])
        async with asyncio.timeout(60):
            ended = {(await stream.next_report()).task_id for _ in range(2)}

    assert ended == {"t", "u"}
