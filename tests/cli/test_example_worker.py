"""The example's actions at work on a real git repository, called as the workflow calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon.v1 import workers_pb2
from runkon_client import ActionOutput, FinalError, RetryableError, Task
from runkon_client.cli.modules import load_actions

if TYPE_CHECKING:
    from runkon_client.worker import PriorContext

ROOT: Final = Path(__file__).resolve().parents[2]
ACTIONS: Final = load_actions(str(ROOT / "examples/workers/development_cycle.py"))

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the example works with git")


class NoHost:
    """A worker that nothing is asked of."""

    def send_progress(self, token: str, progress: str) -> None:
        raise AssertionError

    def await_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        raise AssertionError

    async def fetch_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        raise AssertionError


class Cycle:
    """One run of the workflow, driven by hand."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.variables = {"ticket": "Add median", "repository": str(repository)}

    def do(self, action: str, *, error: str = "", feedback: str | None = None) -> ActionOutput:
        """Execute one action; its text outputs are variables of those that follow."""
        lease = workers_pb2.TaskLease(
            action=action,
            run_id="01JD000000000000000CYCLE",
            inputs=self.variables,
            retry_error=error,
            gate_feedback=feedback,
        )
        found = ACTIONS.find(action)
        assert found is not None
        output = found.function(Task(lease, NoHost()))
        assert isinstance(output, ActionOutput)
        if isinstance(output.structured_output, dict):
            self.variables |= output.structured_output
        return output

    def up_to_review(self) -> None:
        """Everything before the first review."""
        for action in ("prepare", "plan", "write-tests"):
            self.do(action)
        self.do("implement", error="a failed attempt")
        self.do("run-checks")
        self.do("fix-checks")

    def git(self, *arguments: str) -> str:
        """What git prints in the repository."""
        environment = {key: text for key, text in os.environ.items() if key[:4] != "GIT_"}
        return subprocess.run(
            ["git", *arguments],
            cwd=self.repository,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    return Cycle(tmp_path / "repository")


def test_the_first_attempt_fails_its_tests_and_the_next_is_told(cycle: Cycle) -> None:
    """The report of the failed tests is the error; the second attempt commits."""
    cycle.do("prepare")
    plan = cycle.do("plan")
    cycle.do("write-tests")
    with pytest.raises(RetryableError, match="does_not_depend_on_the_order") as first:
        cycle.do("implement")
    second = cycle.do("implement", error=str(first.value))

    assert plan.markers == ()
    assert second.context.endswith("Add median")
    assert "Add median" in cycle.git("log", "--oneline")


def test_checks_converge_after_one_fix(cycle: Cycle) -> None:
    """The missing docstring is found, and then it is there."""
    cycle.up_to_review()

    assert cycle.do("run-checks").markers == ()
    assert "Document median" in cycle.git("log", "--oneline")


def test_reviews_find_real_faults_once(cycle: Cycle) -> None:
    """Even counts and the empty list in the first pass, nothing in the second."""
    cycle.up_to_review()
    first = cycle.do("review-correctness")
    tests = cycle.do("review-tests")
    security = cycle.do("review-security")
    cycle.do("address-findings")

    assert first.markers == ("has_findings",)
    assert "median([]) raises ValueError" in first.context
    assert (tests.markers, security.markers) == ((), ())
    assert cycle.do("review-correctness").context == "approved"


@pytest.mark.parametrize(("answer", "parents"), [("squash", 1), ("merge", 2), ("well done", 2)])
def test_the_gates_answer_decides_how_it_is_merged(cycle: Cycle, answer: str, parents: int) -> None:
    """As one commit, or with all; free words are kept in the merge's message."""
    cycle.up_to_review()
    cycle.do("address-findings")
    cycle.do("update-changelog")
    cycle.do("merge", feedback=answer)
    cycle.variables["workflow_status"] = "completed"
    told = cycle.do("notify")

    assert len(cycle.git("log", "-1", "--format=%P", "main").split()) == parents
    assert ("well done" in cycle.git("log", "-1", "--format=%B", "main")) is (answer == "well done")
    assert "Add the sample project" in told.result_text
    assert cycle.git("status", "--porcelain") == ""


def test_every_action_may_be_executed_twice(cycle: Cycle) -> None:
    """Delivery is at least once: the second execution adds no commit and fails nowhere."""
    for action in ("prepare", "plan", "write-tests"):
        cycle.do(action)
        cycle.do(action)
    for action in ("implement", "run-checks", "fix-checks", "address-findings"):
        cycle.do(action, error="again")
        before = cycle.git("log", "--oneline")
        cycle.do(action, error="again")

        assert cycle.git("log", "--oneline") == before
    for action in ("update-changelog", "merge", "tag-release"):
        cycle.do(action)
        before = cycle.git("log", "--oneline", "--all")
        cycle.do(action)

        assert cycle.git("log", "--oneline", "--all") == before


def test_a_foreign_folder_is_left_alone(cycle: Cycle) -> None:
    """The example writes only into its own sample; another attempt would not help."""
    cycle.repository.mkdir()
    cycle.repository.joinpath("precious.txt").write_text("mine")

    with pytest.raises(FinalError, match="neither empty nor"):
        cycle.do("prepare")
    assert [path.name for path in cycle.repository.iterdir()] == ["precious.txt"]


def test_triage_writes_down_the_last_word_of_the_failure(cycle: Cycle) -> None:
    """It is given the failed step and the reason as variables."""
    cycle.variables |= {"failed_step": "implement", "failure_reason": "Traceback\nValueError: no"}

    assert cycle.do("triage").context == "implement gave up: ValueError: no"


def test_notify_works_before_there_is_a_repository(cycle: Cycle) -> None:
    """The `always` section runs whatever failed."""
    cycle.variables["workflow_status"] = "failed"

    assert cycle.do("notify").context == "failed, before there was a repository"


def test_outputs_are_json(cycle: Cycle) -> None:
    """Only text fields of a JSON object become variables."""
    output = cycle.do("prepare").structured_output

    assert json.loads(json.dumps(output)) == {"workspace": str(cycle.repository)}
