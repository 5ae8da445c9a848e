"""The actions of ../workflows/ticket-to-pr.wf, at work on a real git repository.

    runkon worker examples/workers/development_cycle.py

In the place of a coding agent there are prepared texts, with the mistakes that such agents make:
the first attempt fails the tests, the second lacks documentation and forgets the edge cases. All
the rest is real: files are edited, tests run in a process of their own, every change is a commit.

An action may be executed twice, when a worker or its connection is lost: so each looks at what is
there, and writing or committing the same again changes nothing.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runkon_client import ActionOutput, Actions, FinalError, RetryableError

if TYPE_CHECKING:
    from runkon_client import Task

actions = Actions()

SAMPLE: Final = {
    "stats.py": '''\
"""Small statistics on lists of numbers."""


def mean(numbers):
    """The arithmetic mean."""
    return sum(numbers) / len(numbers)
''',
    "test_stats.py": """\
import unittest

import stats


class MeanTest(unittest.TestCase):
    def test_mean_of_two(self):
        self.assertEqual(stats.mean([1, 3]), 2)


if __name__ == "__main__":
    unittest.main()
""",
    "CHANGELOG.md": "# Changelog\n\n",
}

MEDIAN_TEST: Final = """\


class MedianTest(unittest.TestCase):
    def test_median_does_not_depend_on_the_order(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
"""

EDGE_CASE_TESTS: Final = """\

    def test_median_of_an_even_count_lies_between(self):
        self.assertEqual(stats.median([4, 1, 3, 2]), 2.5)

    def test_median_of_nothing_is_refused(self):
        with self.assertRaises(ValueError):
            stats.median([])
"""

DRAFTS: Final = (
    """\


def median(numbers):
    return numbers[len(numbers) // 2]
""",
    """\


def median(numbers):
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]
""",
)

FINAL: Final = '''\


def median(numbers):
    """The middle of the sorted numbers, or the mean of the two in the middle."""
    ordered = sorted(numbers)
    if not ordered:
        raise ValueError("the median of nothing")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
'''

PROBES: Final = {
    "median([4, 1, 3, 2]) is 2.5": "assert stats.median([4, 1, 3, 2]) == 2.5",
    "median([]) raises ValueError": """\
try:
    stats.median([])
except ValueError:
    pass
else:
    raise AssertionError
""",
    "its argument is left as it was": """\
numbers = [3, 1, 2]
stats.median(numbers)
assert numbers == [3, 1, 2]
""",
}

GIT_SETTINGS: Final = {
    "user.name": "Runkon example",
    "user.email": "example@runkon.invalid",
    "init.defaultBranch": "main",
    "commit.gpgSign": "false",
    "core.hooksPath": os.devnull,
}
PROCESS_LIMIT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of one git repository."""

    folder: Path

    def git(self, *arguments: str) -> str:
        """What git prints; a RetryableError with its complaint if it fails."""
        settings = [word for pair in GIT_SETTINGS.items() for word in ("-c", "=".join(pair))]
        # Neither a surrounding repository nor the user's settings shall have a say in this one.
        environment = {key: text for key, text in os.environ.items() if key[:4] != "GIT_"}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return self._run(["git", *settings, *arguments], environment)

    def python(self, *arguments: str) -> str:
        """What a Python of its own prints; a RetryableError with its output if it fails."""
        return self._run([sys.executable, "-B", *arguments], dict(os.environ))

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PROCESS_LIMIT_S,
                check=False,
            )
        except FileNotFoundError as reason:
            message = f"this example needs the program `{command[0]}`, which is not installed"
            raise FinalError(message, code="MISSING_PROGRAM") from reason
        except subprocess.TimeoutExpired as reason:
            raise RetryableError(f"no end after {PROCESS_LIMIT_S} s: {command[-1]}") from reason
        if done.returncode != 0:
            raise RetryableError(
                done.stdout.strip() or f"exit code {done.returncode}: {command[-1]}"
            )
        return done.stdout.strip()

    def read(self, name: str) -> str:
        """The text of a file."""
        return self.folder.joinpath(name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Replace the text of a file."""
        self.folder.joinpath(name).write_text(text, encoding="utf-8")

    def run_tests(self) -> None:
        """Run all unit tests; a RetryableError with their report if one fails."""
        try:
            self.python("-m", "unittest", "--failfast")
        except RetryableError as failed:
            report = failed.message
            verdict = [line for line in report.splitlines() if line.startswith("AssertionError")]
            raise RetryableError("\n".join([report, *verdict])) from None

    def commit(self, message: str) -> str:
        """Commit whatever has changed, perhaps nothing; the newest commit in one line."""
        self.git("add", "--all")
        if self.git("status", "--porcelain"):
            self.git("commit", "--quiet", "--message", message)
        return self.git("log", "--max-count=1", "--oneline")

    def log(self) -> str:
        """All commits of all branches, as a graph."""
        return self.git("log", "--oneline", "--graph", "--decorate", "--all")


def workspace_of(task: Task) -> Workspace:
    """The repository that `prepare` found: its output is a variable of all later steps."""
    return Workspace(Path(task.inputs["workspace"]))


def branch_of(task: Task) -> str:
    """A branch of the run's own."""
    return f"ticket/{task.run_id[-8:].lower()}"


@actions.action("prepare")
def prepare(task: Task) -> ActionOutput:
    """Take the repository, or make the sample, and switch to a branch of the run's own."""
    given = task.inputs.get("repository", "")
    shared = Path(tempfile.gettempdir(), f"runkon-example-{task.run_id.lower()}")
    workspace = Workspace(Path(given).absolute() if given else shared)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    if not any(workspace.folder.iterdir()):
        workspace.git("init", "--quiet")
    if not any(path.name != ".git" for path in workspace.folder.iterdir()):
        for name, text in SAMPLE.items():
            workspace.write(name, text)
        workspace.commit("Add the sample project")
    elif any(not workspace.folder.joinpath(name).exists() for name in (*SAMPLE, ".git")):
        message = f"{workspace.folder} is neither empty nor this example's sample project"
        raise FinalError(message, code="FOREIGN_REPOSITORY")
    branches = workspace.git("branch", "--format=%(refname:short)").split()
    create = [] if branch_of(task) in branches else ["--create"]
    workspace.git("switch", "--quiet", *create, branch_of(task))
    return ActionOutput(
        context=f"on branch {branch_of(task)} in {workspace.folder}",
        structured_output={"workspace": str(workspace.folder)},
    )


@actions.action("plan")
def plan(task: Task) -> ActionOutput:
    """Look what is there and say what is to be done."""
    workspace = workspace_of(task)
    functions = [
        node.name
        for node in ast.parse(workspace.read("stats.py")).body
        if isinstance(node, ast.FunctionDef)
    ]
    markers = ("has_tests",) if "MedianTest" in workspace.read("test_stats.py") else ()
    return ActionOutput(
        context=f"{task.inputs['ticket']}: stats.py has {', '.join(functions)}; median is missing",
        markers=markers,
    )


@actions.action("write-tests")
def write_tests(task: Task) -> ActionOutput:
    """Say in a test what is asked for, before it is there."""
    workspace = workspace_of(task)
    tests = workspace.read("test_stats.py")
    if MEDIAN_TEST not in tests:
        before, entry, after = tests.partition("\n\nif __name__")
        workspace.write("test_stats.py", before + MEDIAN_TEST + entry + after)
    return ActionOutput(context="tests say what the ticket asks for")


@actions.action("implement")
def implement(task: Task) -> ActionOutput:
    """Write the code, run the tests, commit; the tests' report is what a retry starts from."""
    workspace = workspace_of(task)
    draft = DRAFTS[0] if task.retry_error == "" else DRAFTS[1]
    workspace.write("stats.py", SAMPLE["stats.py"] + draft)
    workspace.run_tests()
    return ActionOutput(context=workspace.commit("Add median"))


@actions.action("triage")
def triage(task: Task) -> ActionOutput:
    """Write down what is known about a step that failed for good."""
    failed, reason = task.inputs["failed_step"], task.inputs["failure_reason"]
    lines = reason.strip().splitlines() or ["no reason was given"]
    return ActionOutput(context=f"{failed} gave up: {lines[-1]}", result_text=reason)


@actions.action("run-checks")
def run_checks(task: Task) -> ActionOutput:
    """Run the tests, and look for functions without documentation."""
    workspace = workspace_of(task)
    workspace.run_tests()
    undocumented = [
        node.name
        for node in ast.walk(ast.parse(workspace.read("stats.py")))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None
    ]
    if undocumented:
        return ActionOutput(
            context=f"no docstring: {', '.join(undocumented)}", markers=("failing",)
        )
    return ActionOutput(context="tests and documentation are in order")


@actions.action("fix-checks")
def fix_checks(task: Task) -> ActionOutput:
    """Give the new function its docstring."""
    workspace = workspace_of(task)
    code = workspace.read("stats.py")
    head = "def median(numbers):\n"
    docstring = '    """The middle of the sorted numbers."""\n'
    if head + docstring not in code:
        workspace.write("stats.py", code.replace(head, head + docstring))
    return ActionOutput(context=workspace.commit("Document median"))


@actions.action("review-correctness")
def review_correctness(task: Task) -> ActionOutput:
    """Try cases that the tests may have missed, each in a process of its own."""
    workspace = workspace_of(task)
    wrong = []
    for claim, probe in PROBES.items():
        try:
            workspace.python("-c", f"import stats\n{probe}")
        except RetryableError:
            wrong.append(claim)
    return review("it does not hold that ", wrong)


@actions.action("review-tests")
def review_tests(task: Task) -> ActionOutput:
    """Look for functions that no test calls."""
    workspace = workspace_of(task)
    tests = workspace.read("test_stats.py")
    functions = [
        node.name
        for node in ast.parse(workspace.read("stats.py")).body
        if isinstance(node, ast.FunctionDef)
    ]
    return review("no test calls ", [name for name in functions if f"stats.{name}(" not in tests])


@actions.action("review-security")
def review_security(task: Task) -> ActionOutput:
    """Look for calls that execute text; only asked for when a plan touches input from outside."""
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(workspace_of(task).read("stats.py")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return review("it executes text with ", sorted(calls & {"eval", "exec", "compile"}))


def review(complaint: str, findings: list[str]) -> ActionOutput:
    """A review's output; the marker `has_findings` sends the run into another pass."""
    if not findings:
        return ActionOutput(context="approved")
    return ActionOutput(
        context="; ".join(complaint + finding for finding in findings), markers=("has_findings",)
    )


@actions.action("address-findings")
def address_findings(task: Task) -> ActionOutput:
    """Put the edge cases right and keep them right with tests."""
    workspace = workspace_of(task)
    workspace.write("stats.py", SAMPLE["stats.py"] + FINAL)
    tests = workspace.read("test_stats.py")
    if EDGE_CASE_TESTS not in tests:
        before, entry, after = tests.partition("\n\nif __name__")
        workspace.write("test_stats.py", before + EDGE_CASE_TESTS + entry + after)
    workspace.run_tests()
    return ActionOutput(context=workspace.commit("Handle even counts and the empty list"))


@actions.action("update-changelog")
def update_changelog(task: Task) -> ActionOutput:
    """Tell users what is new."""
    workspace = workspace_of(task)
    line = f"- {task.inputs['ticket']}\n"
    changes = workspace.read("CHANGELOG.md")
    if line not in changes:
        workspace.write("CHANGELOG.md", changes + line)
    return ActionOutput(context=workspace.commit("Update the changelog"))


@actions.action("merge")
def merge(task: Task) -> ActionOutput:
    """Merge the branch, the way the gate was answered: with its commits, or as one."""
    workspace, branch = workspace_of(task), branch_of(task)
    workspace.git("switch", "--quiet", "main")
    answer = task.gate_feedback or ""
    if answer == "squash":
        workspace.git("merge", "--quiet", "--squash", branch)
        return ActionOutput(context=workspace.commit(task.inputs["ticket"]))
    message = f"Merge {branch}: {task.inputs['ticket']}"
    if answer not in ("", "merge"):
        message += f"\n\nReviewed with the words: {answer}"
    workspace.git("merge", "--quiet", "--no-ff", "--message", message, branch)
    return ActionOutput(context=workspace.git("log", "--max-count=1", "--oneline"))


@actions.action("tag-release")
def tag_release(task: Task) -> ActionOutput:
    """Tag what was merged."""
    workspace = workspace_of(task)
    tags = workspace.git("tag", "--points-at", "main").split()
    if not tags:
        tags = [f"release-{len(workspace.git('tag').split()) + 1}"]
        workspace.git("tag", "--annotate", "--message", task.inputs["ticket"], tags[0], "main")
    return ActionOutput(context=f"tagged {tags[0]}")


@actions.action("notify")
def notify(task: Task) -> ActionOutput:
    """Tell how it ended, whatever happened before: this step is in the `always` section."""
    status = task.inputs["workflow_status"]
    if "workspace" not in task.inputs:
        return ActionOutput(context=f"{status}, before there was a repository")
    log = workspace_of(task).log()
    return ActionOutput(context=f"{status}: {task.inputs['ticket']}", result_text=log)
