"""Agents kept as files: how they are read, what the command is told, what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from client.workers import lease_of, reported

from runkon.v1 import workers_pb2
from runkon_client import Actions, Task
from runkon_client.worker.agents import Agent, AgentFileError, add_agents, assemble, read_agent
from runkon_client.worker.programs import CommandLine

if TYPE_CHECKING:
    from pathlib import Path


class NoHost:
    """For tasks that ask nothing of their worker."""

    def send_progress(self, token: str, progress: str) -> None:
        raise AssertionError

    def await_prior_contexts(self, task: Task) -> Any:
        raise AssertionError

    async def fetch_prior_contexts(self, task: Task) -> Any:
        raise AssertionError


def task(**fields: Any) -> Task:
    return Task(lease_of(workers_pb2.TASK_KIND_ACTION, "plan", **fields), NoHost())


def agent(prompt: str, **fields: Any) -> Agent:
    return Agent(name="plan", prompt=prompt, **fields)


def file(folder: Path, text: str, name: str = "plan.md") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(text.encode())
    return path


def test_the_head_of_a_file_is_yaml(tmp_path: Path) -> None:
    """Keys of others are left alone."""
    head = "---\nmodel: opus\nrole: actor\ncan_commit: true\ntools: [x]\n---\n"
    text = f"{head}\nPlan.\n".replace("\n", "\r\n")

    assert read_agent(file(tmp_path, text)) == Agent(
        name="plan", prompt="Plan.", model="opus", role="actor", can_commit=True
    )


@pytest.mark.parametrize("text", ["Plan.\n", "\ufeffPlan.", "---\n---\nPlan.", "\n---\nPlan."])
def test_a_head_may_be_missing_or_empty(tmp_path: Path, text: str) -> None:
    found = read_agent(file(tmp_path, text))

    assert (found.prompt.rpartition("\n")[2], found.model, found.can_commit) == ("Plan.", "", False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("---\nmodel: x\n", ":1: the head has no end"),
        ("---\na: b\nmodel: [}\n---\n", ":3: the head is no YAML"),
        ("---\n- a\n---\n", ":2: the head must be a map"),
        ("---\nmodel: 4\n---\n", "`model` must be a text"),
        ("---\ncan_commit: often\n---\n", "`can_commit` must be true or false"),
        ("---\na: &x [*x]\nb: !!python/object:os.system {}\n---\n", "the head is no YAML"),
        ("x" * (1 << 20) + "y", "larger than"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(AgentFileError) as raised:
        read_agent(file(tmp_path, text))

    assert f"{tmp_path}/plan.md" in str(raised.value)
    assert complaint in str(raised.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "plan.md"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(AgentFileError, match="not a UTF-8 text"):
        read_agent(path)
    with pytest.raises(AgentFileError, match="No such file"):
        read_agent(tmp_path / "gone.md")


def test_a_prompt_is_put_together_in_order() -> None:
    """Notices, the text with its values, the plan file, variables, snippets, the ending."""
    snippets = [workers_pb2.Snippet(name="style", text="Be brief.")]
    inputs = {"ticket": "T-1", "fsm_path": "docs/fsm.md"}
    prompt = assemble(
        agent("Plan {{ ticket }} with {{inputs.ticket}}{{nobody}}.", can_commit=True),
        task(inputs=inputs, snippets=snippets, retry_error="it broke", dry_run=True),
    )
    parts = [
        "This is a dry run.",
        "An attempt before this one failed.",
        "it broke",
        "You do one step of a workflow.",
        "Plan T-1 with T-1.",
        "Before anything else, read the file docs/fsm.md first.",
        "- fsm_path: docs/fsm.md\n- ticket: T-1",
        "Be brief.",
        "<<<FLOW_OUTPUT>>>",
    ]
    places = [prompt.index(part) for part in parts]

    assert places == sorted(places)


def test_only_an_agent_that_may_commit_is_told_of_a_dry_run() -> None:
    assert "dry run" not in assemble(agent("Look."), task(dry_run=True))


def test_values_are_not_looked_through_again() -> None:
    prompt = assemble(agent("<{{a}}>"), task(inputs={"a": "{{b}}", "b": "secret"}))

    assert "<{{b}}>" in prompt


def test_a_schema_takes_the_place_of_the_plain_ending() -> None:
    schema = workers_pb2.OutputSchema(name="plan", source="fields:\n  steps: array\n")
    prompt = assemble(agent("Plan."), task(output_schema=schema))

    assert "steps: array" in prompt
    assert '"markers"' not in prompt


async def test_a_command_answers_for_each_agent_of_a_folder(tmp_path: Path) -> None:
    """By its name and by its path; the model and the prompt are the file's."""
    file(tmp_path, "---\nmodel: opus\n---\nPlan {{ticket}}.", "agents/plan.md")
    file(tmp_path, "Review.", "agents/review.md")
    actions = Actions()
    command = CommandLine(
        text='printf "%s/%s " "$RUNKON_AGENT" "$RUNKON_MODEL"; grep Plan', folder=tmp_path
    )
    names = add_agents(actions, tmp_path / "agents", command)
    lease = lease_of(workers_pb2.TASK_KIND_ACTION, "agents/plan.md", inputs={"ticket": "T-1"})
    report = await reported(actions, lease)

    assert names == ("plan", "review")
    assert actions.names == ("plan", "agents/plan.md", "review", "agents/review.md")
    assert report.result.raw_output == "plan/opus Plan T-1.\n"


async def test_a_file_that_broke_since_is_a_final_failure(tmp_path: Path) -> None:
    path = file(tmp_path, "Plan.", "agents/plan.md")
    actions = Actions()
    add_agents(actions, path.parent, CommandLine(text="cat", folder=tmp_path))
    path.write_text("---\nmodel: [\n---\n")
    failure = (await reported(actions, lease_of(workers_pb2.TASK_KIND_ACTION, "plan"))).failure

    assert (failure.code, failure.retryable) == ("AGENT_INVALID", False)


def test_a_folder_without_agents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no agents"):
        add_agents(Actions(), tmp_path, CommandLine(text="cat", folder=tmp_path))
