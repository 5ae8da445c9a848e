#!/usr/bin/env python3
"""Runkon's task runner.

Needs Python 3.11 and a way to install packages; makes the environment `.venv` on first use and
brings it up to date when pyproject.toml changes. RUNKON_VENV puts it elsewhere.
"""

import ast
import hashlib
import math
import os
import subprocess
import sys
import time
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit(f"Runkon needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")

from typing import TYPE_CHECKING

from tools import environments

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("RUNKON_VENV", ROOT / ".venv")).absolute()


def demo(arguments: list[str]) -> int:
    """Run the guided tour: server, worker and one workflow with a gate (--yes answers it)."""
    return become(install("embedded"), ["-m", "runkon_client.cli", "demo", *arguments])


def test(arguments: list[str]) -> int:
    """Run the tests on all processors: pytest's arguments, --postgres embedded|system."""
    if "--postgres" in arguments:
        at = arguments.index("--postgres")
        choice, arguments = arguments[at + 1 : at + 2], arguments[:at] + arguments[at + 2 :]
        if choice not in (["embedded"], ["system"]):
            raise SystemExit("--postgres takes `embedded` or `system`")
        os.environ["RUNKON_TEST_POSTGRES"] = choice[0]
    return become(install("dev"), ["-m", "pytest", *spread(arguments), *arguments])


def spread(arguments: list[str], per_processor: float = 1.5) -> list[str]:
    """Pytest's options for all processors, unless the arguments choose or want the terminal.

    More workers than processors, for tests wait half of their time. At most eight: each has a
    PostgreSQL of its own.
    """
    if any(each[:2] in ("-n", "-s") or each in ("--pdb", "--collect-only") for each in arguments):
        return []
    workers = math.ceil((os.cpu_count() or 1) * per_processor)
    return ["-n", str(min(workers, 8)), "--dist", "worksteal"]


def faults(arguments: list[str]) -> int:
    """Run the tests that harm PostgreSQL: crashes, fail-overs, full disks, poolers, upgrades."""
    # The tests of a file share a server, which each of them may stop.
    files = [option.replace("worksteal", "loadfile") for option in spread(arguments, 1)]
    return become(install("dev"), ["-m", "pytest", "-m", "faults", *files, *arguments])


def check(arguments: list[str]) -> int:
    """Run every static check, also when one fails: stubs, code, types, imports, contract."""
    if arguments:
        raise SystemExit("check takes no arguments")
    python = install("dev")
    buf, lint_imports = (str(Path(python).with_name(name)) for name in ("buf", "lint-imports"))
    steps = {
        "generated code": [sys.executable, "-m", "tools.gen", "--check"],
        # Its cache knows a file by its text, but whose imports are ours depends on other files.
        "lint": [python, "-m", "ruff", "check", "--no-cache"],
        "format": [python, "-m", "ruff", "format", "--check"],
        "types": [python, "-m", "mypy"],
        "imports": [lint_imports, "--no-logo"],
        "contract": [buf, "lint", "protos"],
        "contract format": [buf, "format", "--diff", "--exit-code", "protos"],
        "compatibility": [buf, "breaking", "protos", "--against", "protos/baseline.binpb"],
        "error reference": [python, "-m", "tools.error_reference", "--check"],
    }
    failed = [name for name, command in steps.items() if not passes(name, command)]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def passes(name: str, command: list[str]) -> bool:
    """Run one step, print its name, verdict and time, and what it said when it failed."""
    print(f"{name:<16}", end="", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(f"{'ok' if done.returncode == 0 else 'FAILED':<7}{time.monotonic() - start:5.1f} s")
    if done.returncode != 0:
        print(done.stdout, flush=True)
    return done.returncode == 0


def gen(arguments: list[str]) -> int:
    """Generate the Python stubs from the .proto files (--check only compares)."""
    return become(sys.executable, ["-m", "tools.gen", *arguments])


def bench(arguments: list[str]) -> int:
    """Run the named benchmark; without a name, list them."""
    return run_named("bench", ROOT / "benchmarks", arguments)


def fuzz(arguments: list[str]) -> int:
    """Feed garbage to the named part, in search of what breaks it; without a name, list them."""
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    return run_named("fuzz", ROOT / "tests" / "fuzz", arguments)


def mutants(arguments: list[str]) -> int:
    """Make faults in the named part, each of which the tests must notice; without a name, all."""
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    package = ROOT / "tests" / "mutants"
    if arguments:
        return run_named("mutants", package, arguments)
    python = install("dev")
    failed = [
        name
        for name in programs_in(package)
        if subprocess.run([python, "-m", f"mutants.{name}"], cwd=ROOT, check=False).returncode != 0
    ]
    print(f"failed: {', '.join(failed)}" if failed else "all mutants killed")
    return 1 if failed else 0


def chaos(arguments: list[str]) -> int:
    """Break a whole service on purpose and check that nothing is lost: --seconds N, --seed S."""
    return become(
        install("dev"), ["-m", "runkon_server.cli", "verify", "--own-postgres", *arguments]
    )


def failpoints(arguments: list[str]) -> int:
    """End a server at every point where a crash could hurt; see that nothing is lost or doubled."""
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    return become(install("dev"), ["-m", "failpoints.sweep", *arguments])


def kills(arguments: list[str]) -> int:
    """Kill and freeze workers at random under 1,000 tasks (--tasks N): none may be lost."""
    tasks = "1000"
    if "--tasks" in arguments:
        at = arguments.index("--tasks")
        tasks, arguments = "".join(arguments[at + 1 : at + 2]), arguments[:at] + arguments[at + 2 :]
    if not tasks.isdecimal() or tasks.strip("0") == "":
        raise SystemExit("--tasks takes a number")
    os.environ["RUNKON_KILLED_TASKS"] = tasks
    rig = "tests/e2e/test_worker_kills.py"
    return become(install("dev"), ["-m", "pytest", "-q", "-s", rig, *arguments])


def run_named(task: str, package: Path, arguments: list[str]) -> int:
    """Run the program of a package that the first argument names; without a name, list them."""
    known = programs_in(package)
    if arguments and arguments[0] in known:
        return become(install("dev"), ["-m", f"{package.name}.{arguments[0]}", *arguments[1:]])
    print(f"usage: python3 dev.py {task} NAME [arguments]\n", file=sys.stderr)
    print(listing(known), file=sys.stderr)
    return 2 if arguments else 0


def programs_in(package: Path) -> dict[str, str]:
    """The programs of a package, each with the first line of what it says of itself."""
    return {
        path.stem: summary_of(path)
        for path in sorted(package.glob("*.py"))
        if not path.stem.startswith("_")
    }


TASKS: dict[str, "Callable[[list[str]], int]"] = {
    task.__name__: task
    for task in (demo, test, faults, failpoints, kills, chaos, check, gen, bench, fuzz, mutants)
}


def install(extra: str) -> str:
    """Bring the environment up to date for `extra` of pyproject.toml; returns its interpreter."""
    project = (ROOT / "pyproject.toml").read_bytes()
    fingerprint = hashlib.sha256(project + str(ROOT).encode()).hexdigest()
    requirements = ["--editable", f"{ROOT}[{extra}]"]
    if extra != "dev" and environments.has(VENV, "dev", fingerprint):
        extra = "dev"  # holds the other extras too
    return str(environments.ensure(VENV, extra, fingerprint, requirements))


def become(python: str, arguments: list[str]) -> int:
    """Replace this process, in the project's folder: signals and exit code are the task's own."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(python, [python, *arguments])


def summary_of(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0]


def listing(entries: dict[str, str]) -> str:
    """One indented line per name, the descriptions aligned."""
    width = max(map(len, entries), default=0) + 2
    return "\n".join(f"  {name:<{width}}{text}" for name, text in entries.items())


def main(arguments: list[str]) -> int:
    """Run the task that the first argument names."""
    if arguments and arguments[0] in TASKS:
        try:
            return TASKS[arguments[0]](arguments[1:])
        except environments.EnvironmentNotMadeError as reason:
            print(reason, file=sys.stderr)
            return 1
    print("usage: python3 dev.py TASK [arguments]\n", file=sys.stderr)
    print(listing({name: task.__doc__ or "" for name, task in TASKS.items()}), file=sys.stderr)
    return 0 if arguments in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
