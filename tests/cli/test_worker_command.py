"""`runkon worker` as a process: what it says, and that it ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from runkon_client.cli import main
from runkon_client.cli.worker import environments_of

ROOT: Final = Path(__file__).resolve().parents[2]
WORKER: Final = ROOT / "examples/workers/any_action.py"


def started(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker without a server; it prints what it offers, and waits."""
    return subprocess.Popen(
        [sys.executable, "-m", "runkon_client.cli", "worker", *words, "--address", "127.0.0.1:1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def said_by(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    """Its first line, and what it wrote to standard error until the signal had ended it."""
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    return line, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_without_a_server_waits_until_it_is_stopped(number: signal.Signals) -> None:
    """Exit code 0: being stopped is how a worker ends."""
    line, _ = said_by(started(str(WORKER), "--id", "w-1", "--json"), number)

    assert json.loads(line) == {"worker_id": "w-1", "address": "127.0.0.1:1", "actions": ["*"]}


def test_a_worker_says_what_it_offers(tmp_path: Path) -> None:
    """Items and gates of a module, scripts, the gates of GitHub: all in one process."""
    module = tmp_path / "offers.py"
    module.write_text(
        "from runkon_client import Actions\n"
        "actions = Actions()\n"
        "actions.items('tickets')(lambda task: [])\n"
        "actions.gate('window')(lambda task: None)\n",
        encoding="utf-8",
    )
    words = [str(module), "--allow-scripts", str(tmp_path), "--sandbox", "none", "--github"]
    line, errors = said_by(started(*words, "--id", "w-1", "--queue", "gpu", "--queue", ""))

    assert line == (
        "worker w-1 for 127.0.0.1:1, queue gpu, default: items of tickets, window gates, "
        "pr_approval gates, pr_checks gates, scripts\n"
    )
    assert "in no sandbox: as asked for" in errors


def refusal_of(*words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    process = started(*words, env=env)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "nothing to offer"),
        (["--grace", "nan"], "is not a number"),
        (["--grace", "inf"], "is not in the range"),
        (["--script-write"], "need --allow-scripts"),
        (["--sandbox", "none"], "need --allow-scripts"),
        (["--allow-scripts", "missing"], "does not exist"),
        (["--allow-scripts", ".", "--script-env", "RUNKON_NOT_SET"], "not set: RUNKON_NOT_SET"),
        (["--allow-scripts", ".", "--script-env", "bot:T=RUNKON_NOT"], "not set: RUNKON_N"),
        (["--github-tokens", __file__], "needs --github"),
        (["--exec", "build"], "is not --exec NAME=COMMAND"),
        (["--exec", "a=true", "--exec", "a=false"], "there is an action 'a' already"),
        (["--agents", "."], "--agents and --agent-command go together"),
        (["--agents", "benchmarks", "--agent-command", "cat"], "no agents"),
        (["--http", "a=ftp://a.example/"], "begins with http"),
        (["--http-token", "T"], "need --http NAME=URL"),
        (
            ["--http", "a=https://a.example/", "--http-token", "RUNKON_NOT_SET"],
            "not set: RUNKON_NOT",
        ),
        (["--http", "a=https://a.example/", "--http-allow", "10.0.0.1/8"], "has host bits set"),
        (["--http", "a=https://a.example/", "--http-header", "Host: x"], "set by the worker"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(words: list[str], complaint: str) -> None:
    """Before anything is started."""
    code, errors = refusal_of(*words)

    assert code == 2
    assert complaint in errors


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("def find():\n    import no_such_thing_at_all\nfind()\n", "line 3, in <module>"),
        ("actions = (\n", "was never closed"),
    ],
    ids=["raises", "does not parse"],
)
def test_a_mistake_in_a_module_is_shown_from_where_its_code_begins(
    tmp_path: Path, text: str, shown: str
) -> None:
    """How it came to be imported is in no line of the traceback."""
    file = tmp_path / "runkon_probe_mistake.py"
    file.write_text(text, encoding="utf-8")
    answer = CliRunner().invoke(main, ["worker", str(file)])

    assert answer.exit_code == 2
    assert shown in answer.output
    assert "cannot be imported" in answer.output
    assert not any(word in answer.output for word in ("importlib", "click/core.py"))


def test_modules_that_offer_the_same_are_wrong_usage() -> None:
    answer = CliRunner().invoke(main, ["worker", str(WORKER), "--module", str(WORKER)])

    assert answer.exit_code == 2
    assert "already" in answer.output


def test_what_is_handed_on_is_named_variable_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """To all scripts, or to those of one identity; under its own name, or under another."""
    monkeypatch.setenv("PROXY", "p")
    monkeypatch.setenv("BOT_TOKEN", "t=1")

    assert environments_of(("PROXY", "bot:GH_TOKEN=BOT_TOKEN", "bot:PROXY", "HTTP=PROXY")) == {
        "": {"PROXY": "p", "HTTP": "p"},
        "bot": {"GH_TOKEN": "t=1", "PROXY": "p"},
    }


def test_a_worker_does_not_start_without_the_sandbox_it_requires(tmp_path: Path) -> None:
    """Where no program can set one up; the reasons are named."""
    words = ["--allow-scripts", str(tmp_path), "--sandbox", "require"]
    code, errors = refusal_of(*words, env={"PATH": str(tmp_path)})

    assert code == 1
    assert "no sandbox: bwrap is not installed; unshare is not installed" in errors


def test_github_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    """A module that cannot be imported stands for one that is not there."""
    missing = "raise ModuleNotFoundError('No module named httpx', name='httpx')"
    tmp_path.joinpath("httpx.py").write_text(missing, encoding="utf-8")
    code, errors = refusal_of("--github", env={"PYTHONPATH": str(tmp_path)})

    assert code == 1
    assert "pip install 'runkon[github]'" in errors


def test_48_a_token_that_cannot_be_sent_is_not_shown() -> None:
    """The complaint says where it is, and nothing of it."""
    code, errors = refusal_of("--github", env={"GITHUB_TOKEN": "ghp_canary and more"})

    assert code == 2
    assert "GITHUB_TOKEN" in errors
    assert "canary" not in errors
