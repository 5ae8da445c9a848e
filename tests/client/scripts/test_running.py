"""Scripts as real processes, in every sandbox that works here: what comes back, what is left."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from client.scripts.runners import processes_with, runner_in

from runkon_client.worker.scripts import NO_SANDBOX, Script, ScriptLimits, ScriptRunner, View
from support.waiting import eventually

if TYPE_CHECKING:
    from client.scripts.runners import Run

    from runkon_client.worker.scripts import Sandbox

HOSTILE: Final = {
    "a command": "$(touch touched)",
    "backquotes": "`touch touched`",
    "a separator": "x; touch touched",
    "a double quote": '"; touch touched; echo "',
    "a single quote": "'; touch touched; echo '",
    "a newline": "x\ntouch touched\n",
    "an operator": "x && touch touched || touch touched",
    "a redirection": "> touched",
    "a glob": "*",
    "an option": "-n",
    "a backslash": "\\\\n\\",
    "a reference": "$HOME ${PATH}",
    "blanks": "  two  blanks  ",
    "no ASCII": "grüße 🦊",
    "nothing": "",
}
SLEEPER: Final = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture
def mark(folder: Path) -> str:
    """A name that only the processes of this test carry."""
    return f"RUNKON_MARK_{os.getpid()}_{abs(hash(folder))}"


async def test_what_a_script_prints_comes_back(run: Run) -> None:
    """Standard output and error apart, the exit code, and how long it took."""
    outcome = await run("echo out; echo err >&2")

    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == ("out\n", "err\n", 0)
    assert outcome.is_success
    assert outcome.duration_s > 0


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
async def test_105_a_value_reaches_the_command_as_one_word(
    run: Run, folder: Path, value: str
) -> None:
    """Bad input 35: it comes by the environment, so no shell reads it, whatever is in it."""
    outcome = await run('printf "<%s>" "$RUNKON_V"', environment={"RUNKON_V": value})

    assert outcome.stdout == f"<{value}>"
    assert sorted(folder.iterdir()) == []  # noqa: ASYNC240 - a local folder


async def test_106_much_output_does_not_block(run: Run) -> None:
    """128 KiB on both pipes at once, more than either holds, arrive whole."""
    writes = "head -c 131072 /dev/zero | tr '\\0' {}"
    outcome = await run(f"{writes.format('o')}; {writes.format('e')} >&2")

    assert outcome.is_success
    assert outcome.stdout == "o" * 131072
    assert outcome.stderr.startswith("eee")


async def test_107_output_need_not_be_text(run: Run) -> None:
    """What is no UTF-8 is replaced and NULs are dropped; the exit code alone decides."""
    outcome = await run(r"printf 'a\377\000b'; printf '\300' >&2")

    assert outcome.is_success
    assert (outcome.stdout, outcome.stderr) == ("a?b", "?")


async def test_108_a_failure_tells_the_end_of_standard_error(run: Run) -> None:
    """The exit code, and of a long complaint the last 2,000 characters."""
    outcome = await run("head -c 50000 /dev/zero | tr '\\0' x >&2; echo ' at last' >&2; exit 3")
    text = outcome.failure_text("script build")

    assert not outcome.is_success
    assert outcome.exit_code == 3
    assert text.startswith("script build ended with exit code 3: …xxx")
    assert text.endswith("x at last")
    assert len(text) < 2100


async def test_a_script_that_a_signal_ends_has_failed(run: Run) -> None:
    """By whatever number the sandbox passes it on."""
    outcome = await run("kill -KILL $$")

    assert not outcome.is_success
    assert outcome.signal == 9 or outcome.exit_code == 137


async def test_109_a_timeout_ends_a_script(run: Run, mark: str, ample_s: float) -> None:
    """Nothing of it is left; the failure names the time it had."""
    timeout_s = ample_s + 0.5
    outcome = await run("echo began; sleep 600", timeout_s=timeout_s, environment={mark: "1"})

    assert outcome.code == "SCRIPT_TIMEOUT"
    assert outcome.retryable
    assert f"{timeout_s:g} s" in outcome.failure_text("script s")
    assert outcome.stdout == "began\n"
    assert processes_with(mark) == []


async def test_110_a_timeout_ends_everything_a_script_began(
    run: Run, mark: str, ample_s: float
) -> None:
    """Fault 47: children in the background, in sessions of their own, deaf to SIGTERM."""
    sleeper = f"python3 -c {shlex.quote(SLEEPER)}"
    limits = ScriptLimits(grace_s=0.3)
    deaf = f"(trap '' TERM; {sleeper} & sleep 600)"
    text = f"trap '' TERM; {sleeper} & {deaf} & while :; do sleep 1; done"
    outcome = await run(text, timeout_s=2 * ample_s, limits=limits, environment={mark: "1"})

    assert outcome.code == "SCRIPT_TIMEOUT"
    assert len(outcome.stdout.split()) == 2, outcome.stderr
    assert processes_with(mark) == []


async def test_a_script_gets_a_grace_to_clean_up(run: Run, ample_s: float) -> None:
    """SIGTERM first; what it still prints counts."""
    limits = ScriptLimits(grace_s=60)
    outcome = await run(
        "trap 'echo cleaned; exit 0' TERM; echo began; while :; do sleep 0.1; done",
        timeout_s=ample_s,
        limits=limits,
    )

    assert outcome.stdout == "began\ncleaned\n"
    assert outcome.code == "SCRIPT_TIMEOUT"


async def test_what_a_script_leaves_in_the_background_ends_with_it(run: Run, mark: str) -> None:
    """Also what holds its pipes open, and what left its session: the step ends promptly."""
    sleeper = f"python3 -c {shlex.quote(SLEEPER)}"
    outcome = await run(f"sleep 600 & {sleeper} & sleep 0.5; echo done", environment={mark: "1"})

    assert outcome.is_success
    assert outcome.stdout.endswith("done\n")
    assert processes_with(mark) == []


async def test_a_script_that_closes_its_output_is_waited_for(run: Run) -> None:
    """The end of the process counts, not that of its output."""
    outcome = await run("exec >&- 2>&-; sleep 0.5; exit 4")

    assert outcome.exit_code == 4
    assert outcome.duration_s >= 0.5


async def test_a_cancelled_script_is_gone_when_the_cancellation_goes_on(
    sandbox: Sandbox, folder: Path, mark: str
) -> None:
    """As the engine cancels it: the coroutine ends cancelled, and no process is left."""
    script = Script(name="s", text="sleep 600 & sleep 600", environment={mark: "1"})
    running = asyncio.create_task(ScriptRunner(View(folder=folder), sandbox=sandbox).run(script))

    async def began() -> bool:
        return len(processes_with(mark, "sleep")) == 2

    await eventually(began, "both children run")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert processes_with(mark) == []


async def test_40_output_without_end_ends_the_script(run: Run, mark: str) -> None:
    """Bad input 40: killed at the limit, never retried; what was kept is bounded."""
    limits = ScriptLimits(output_max_bytes=1 << 20, kept_max_bytes=1 << 16)
    outcome = await run("echo first; yes", limits=limits, environment={mark: "1"})

    assert (outcome.code, outcome.retryable) == ("OUTPUT_LIMIT", False)
    assert outcome.stdout.startswith("first\ny\n")
    assert len(outcome.stdout) <= 1 << 16
    assert processes_with(mark) == []


async def test_40_memory_without_end_ends_the_program(run: Run) -> None:
    """Bad input 40: 1 GiB is refused to a script that may have 256 MiB."""
    limits = ScriptLimits(memory_max_bytes=256 << 20)
    outcome = await run("python3 -c 'x = bytearray(1 << 30)'", limits=limits)

    assert outcome.exit_code == 1
    assert "MemoryError" in outcome.stderr


async def test_40_a_flood_of_processes_is_gone_at_the_end(run: Run, mark: str) -> None:
    """Bad input 40: each child begins a session of its own and ignores SIGTERM."""
    flood = (
        "i=0; while [ $i -lt 100 ]; do setsid sh -c 'trap \"\" TERM; sleep 600' & i=$((i+1)); done"
    )
    outcome = await run(
        f"{flood}; wait", timeout_s=3, limits=ScriptLimits(grace_s=0.1), environment={mark: "1"}
    )

    assert outcome.code == "SCRIPT_TIMEOUT"
    assert processes_with(mark) == []


async def test_a_file_of_any_size_is_refused(run: Run) -> None:
    """A write beyond the limit fails, in the folder and in /tmp."""
    limits = ScriptLimits(file_max_bytes=1 << 20)
    outcome = await run("head -c 2097152 /dev/zero > big", limits=limits)

    assert not outcome.is_success


async def test_a_script_begins_with_nothing_but_its_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad input 39: no variable of the worker's, no descriptor but the first three, no input."""
    monkeypatch.setenv("RUNKON_TEST_SECRET", "canary")
    inherited = os.memfd_create("inherited", 0)
    try:
        outcome = await run(
            "env; ls /proc/self/fd | tr '\\n' ' '; read line; echo \"<$line>\"",
            passed={"LANG": "C"},
            environment={"RUNKON_NAME": "ada"},
        )
    finally:
        os.close(inherited)
    lines = outcome.stdout.splitlines()

    names = {line.partition("=")[0] for line in lines[:-1]}
    assert names == {"PATH", "LANG", "HOME", "TMPDIR", "RUNKON_NAME", "PWD"}
    assert lines[-1] == "0 1 2 3 <>"  # `ls` itself has opened the folder as 3
    assert "canary" not in outcome.stdout


async def test_39_a_script_cannot_read_its_parents_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is started with an empty one, and a sandbox hides the worker besides."""
    monkeypatch.setenv("RUNKON_TEST_SECRET", "canary")
    outcome = await run("cat /proc/$PPID/environ /proc/1/environ | tr '\\0' '\\n'; echo done")

    assert "canary" not in outcome.stdout
    assert outcome.stdout.endswith("done\n")


async def test_each_script_has_a_home_of_its_own(run: Run) -> None:
    """Writable, also TMPDIR, and gone afterwards."""
    first = await run('echo x > "$HOME/file" && cat "$TMPDIR/file"; echo "$HOME"')
    second = await run('cat "$HOME/file"')

    assert first.stdout.startswith("x\n")
    assert not second.is_success
    gone = Path(first.stdout.split()[1], "file")
    assert not gone.exists()  # noqa: ASYNC240 - a local file


async def test_a_home_is_removed_whoever_dies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the launcher, or by the worker if the launcher was killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = runner_in(NO_SANDBOX, View(folder=folder))
    ended = await run("echo x > $HOME/x")
    killed = await run("echo x > $HOME/x; kill -9 $PPID; sleep 600")

    assert ended.is_success
    assert "its launcher was killed" in killed.failure_text("script s")
    assert list(tmp_path.glob("runkon-script-*")) == []  # noqa: ASYNC240 - a local folder


async def test_a_shell_that_is_too_large_to_start_is_a_failure(run: Run) -> None:
    """The system's own refusal comes back as a reason."""
    outcome = await run(": " + "x" * 200_000)

    assert outcome.code == "SCRIPT_START"
    assert "Argument list too long" in outcome.failure_text("script s")


def descriptors() -> set[str]:
    """Numbers of those that this process has open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_too_few_descriptors_are_a_failure_and_none_is_lost(run: Run) -> None:
    """With room for one more, then for two, and so on, until a script can be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await run("true")  # what is opened once and kept
    before = descriptors()
    free = [number for number in range(len(before) + 20) if str(number) not in before]
    codes = []
    try:
        for first_taken in free[:20]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (first_taken, hard))
            codes.append((await run("true")).code)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert set(codes[:8]) == {"SCRIPT_START"}
    assert descriptors() == before


async def test_a_value_too_large_is_refused_only_where_it_is_needed(run: Run) -> None:
    """A text that names the variable must not run without its value."""
    large = "x" * 200_000
    needed = await run('rm -rf "$RUNKON_V/"', environment={"RUNKON_V": large})
    not_needed = await run("echo fine", environment={"RUNKON_V": large})

    assert needed.code == "SCRIPT_REFUSED"
    assert "RUNKON_V" in needed.failure_text("script s")
    assert not_needed.stdout == "fine\n"


async def test_a_script_is_told_what_its_environment_cannot_hold(run: Run) -> None:
    """In a variable, which is not there otherwise; and whoever reads why it failed."""
    large = dict.fromkeys(("RUNKON_A", "RUNKON_B"), "x" * 200_000)
    show = 'echo "${RUNKON_LEFT_OUT-nothing}"; exit 3'

    without = await run(show, environment={"RUNKON_C": "c"})
    told = await run(show, environment={"RUNKON_C": "c", **large})

    assert without.stdout == "nothing\n"
    assert without.failure_text("script s") == "script s ended with exit code 3"
    assert told.stdout == "RUNKON_A RUNKON_B\n"
    assert "not in it: RUNKON_A, RUNKON_B)" in told.failure_text("script s")


async def test_scripts_run_beside_each_other(run: Run) -> None:
    """Four of them end only when all of them have begun."""
    wait = "while [ $(ls | wc -l) -lt 4 ]; do sleep 0.05; done"
    outcomes = await asyncio.gather(*(run(f": > {n}; {wait}; echo {n}") for n in range(4)))

    assert [outcome.stdout for outcome in outcomes] == [f"{n}\n" for n in range(4)]
