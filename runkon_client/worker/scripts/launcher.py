"""The process between a worker and one program: it answers for every process the script starts.

Run as a program of its own, `python -I -S launcher.py`, with nothing but the standard library: it
has one thread, so it may do between fork and exec what a worker full of threads may not. It reads
the script's plan as one line of JSON from its standard input, and then commands: `T` ends the
script in good order, the end of the input (the worker is gone) ends it at once. What came of it
goes as lines of JSON to the descriptor that the plan names.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_LAUNCH_FAILED: Final = 127
_REAP_S: Final = 5.0  # for killed processes to be gone; one may hang in a broken device
_BREATH_S: Final = 0.002


def main() -> None:
    """Run the script of the plan, and end with it."""
    control = sys.stdin.fileno()
    plan, commands = _read_plan(control)
    report = int(plan["report"])
    for descriptor in (report, int(plan["stdin"])):
        os.set_inheritable(descriptor, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # children that leave their session come back here
    _prctl(_PR_SET_DUMPABLE, 0)  # the script may be of the same user
    woken = _wake_on_signals()
    started_at = time.monotonic()
    try:
        child = _start(plan)
    except OSError as error:
        ended: dict[str, object] = {"error": f"{error.strerror}: {error.filename or 'the shell'}"}
    else:
        _tell(report, {"pid": child})
        for output in (1, 2):
            os.close(output)  # only the script's processes hold its pipes
        ended = _supervise(child, (control, woken), commands, grace_s=float(plan["grace_s"]))
    ended["duration_s"] = time.monotonic() - started_at
    if plan["home"]:
        # Here and not in the worker, which may be gone by now.
        import shutil  # noqa: PLC0415 - half of what a launcher costs, and only for this

        shutil.rmtree(plan["home"], ignore_errors=True)
    _tell(report, ended)


def _tell(report: int, what: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone
        os.write(report, json.dumps(what).encode() + b"\n")


def _read_plan(control: int) -> tuple[dict[str, Any], bytes]:
    data = bytearray()
    while b"\n" not in data:
        chunk = os.read(control, 1 << 16)
        if not chunk:
            sys.exit(0)  # the worker is gone already
        data += chunk
    line, _, rest = bytes(data).partition(b"\n")
    return json.loads(line), rest


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere, and where it is forbidden, the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _wake_on_signals() -> int:
    """A descriptor that can be read when a child has ended.

    A SIGTERM means nothing here: whoever wants the script to end says so in a command.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return woken


def _start(plan: dict[str, Any]) -> int:
    """Fork and exec; an error of the child comes back as if it were ours."""
    told, tell = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(told)
        _become(plan, tell, parent)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    if said:
        os.waitpid(child, 0)
        number, _, name = said.decode("utf-8", "replace").partition(" ")
        raise OSError(int(number), os.strerror(int(number)), name)
    return child


def _become(plan: dict[str, Any], tell: int, parent: int) -> NoReturn:
    """In the child: take on limits, folder and environment, then be the script."""
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(_LAUNCH_FAILED)
        os.dup2(int(plan["stdin"]), 0)
        for name, value in plan["limits"].items():
            _limit(getattr(resource, name), int(value))
        os.chdir(plan["cwd"])
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execve(plan["argv"][0], plan["argv"], plan["env"])
    except OSError as error:
        os.write(tell, f"{error.errno} {error.filename or ''}".encode("utf-8", "replace"))
    except BaseException as error:  # noqa: BLE001 - a child must never run on as its parent
        os.write(tell, f"22 {type(error).__name__}".encode())
    os._exit(_LAUNCH_FAILED)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _supervise(
    child: int, inputs: tuple[int, int], commands: bytes, *, grace_s: float
) -> dict[str, object]:
    """Wait for the script, or for a command to end it; leave no process of it alive."""
    control, woken = inputs
    kill_at: float | None = None
    while (status := _reap(child)) is None:
        if b"T" in commands and kill_at is None:
            kill_at = time.monotonic() + grace_s
            _ask_to_end(child)
        left_s = None if kill_at is None else kill_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            _kill(child)
            continue
        ready, _, _ = select.select([control, woken], [], [], left_s)
        if woken in ready:
            os.read(woken, 4096)
        if control in ready:
            commands = os.read(control, 64)
            if not commands:
                _kill(child)
    _kill_remains(child)
    code = os.waitstatus_to_exitcode(status)
    return {"exit_code": code} if code >= 0 else {"signal": -code}


def _reap(child: int) -> int | None:
    """The child's status if it has ended; orphans that came here are buried."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == child:
            return status


def _ask_to_end(child: int) -> None:
    """SIGTERM for every process of the script; its sandbox would take it down without a grace.

    Part of a sandbox is the first process of a PID namespace, and each above that.
    """
    own_depth = len(_numbers_of(os.getpid()))
    numbers = {pid: _numbers_of(pid) for pid in _descendants()}
    inside = [pid for pid, of in numbers.items() if len(of) > own_depth and of[-1] != 1]
    for pid in inside or numbers:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    if not numbers:
        _signal_group(child, signal.SIGTERM)


def _kill(child: int) -> None:
    """Kill the child and wait until it is dead, but leave its status to `_reap`."""
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def _kill_remains(child: int) -> None:
    """Kill until nothing is left: a process may fork between the look and the blow."""
    give_up_at = time.monotonic() + _REAP_S
    _signal_group(child, signal.SIGKILL)
    while time.monotonic() < give_up_at:
        found = _descendants()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_BREATH_S)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader, number)


def _descendants() -> list[int]:
    """Every process below this one, nearest first; none where there is no `/proc`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold anything.
            parent = int(stat.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [*children.get(os.getpid(), ())]
    for pid in found:
        found += children.get(pid, ())
    return found


def _numbers_of(pid: int) -> list[int]:
    """Its number in each PID namespace that it is part of, outermost first."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


if __name__ == "__main__":
    main()
