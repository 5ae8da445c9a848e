"""Virtual environments, made with whatever this machine has: uv, ensurepip, pip or virtualenv.

Distributions mark their own Python "externally managed" (PEP 668) and often ship it without
ensurepip, so an environment of our own is the only place to install into, and there is no single
way to make one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NO_WAY = """\
This Python cannot make a virtual environment: it has neither ensurepip nor pip, and uv and
virtualenv are not installed. On Debian and Ubuntu `apt install python3-venv` is enough."""

_QUIET = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


class EnvironmentNotMadeError(Exception):
    """No environment could be made or filled; the text says what the user can do about it."""


def python_of(venv: Path) -> Path:
    """The environment's interpreter, whether it is there yet or not."""
    return venv / "bin" / "python"


def ensure(venv: Path, name: str, fingerprint: str, requirements: Sequence[str]) -> Path:
    """Make `venv` if need be and install `requirements` unless the same were installed before.

    Safe to call from several processes at once: the second waits for the first.

    Args:
        venv: where the environment is or shall be.
        name: of the set of requirements; one environment may hold several sets.
        fingerprint: changes whenever the set has to be installed anew.
        requirements: arguments of `pip install`.

    Returns:
        The environment's interpreter.

    Raises:
        EnvironmentNotMadeError: this machine lacks the means, or the installation failed.
    """
    if has(venv, name, fingerprint):
        return python_of(venv)
    try:
        with _locked(venv):
            if not has(venv, name, fingerprint):
                if not _works(python_of(venv)):
                    _make(venv)
                print(f"installing {name} into {venv} ...", file=sys.stderr, flush=True)
                _install(venv, requirements)
                _stamp(venv, name).write_text(fingerprint, encoding="utf-8")
    except OSError as reason:
        raise EnvironmentNotMadeError(f"cannot write the environment {venv}: {reason}") from reason
    return python_of(venv)


def has(venv: Path, name: str, fingerprint: str) -> bool:
    """Whether that very set of requirements is installed in `venv`, whose Python is still there."""
    if not python_of(venv).exists():  # a link to a base Python that an upgrade took away
        return False
    try:
        return _stamp(venv, name).read_text(encoding="utf-8") == fingerprint
    except FileNotFoundError:
        return False


def _stamp(venv: Path, name: str) -> Path:
    return venv / f".installed-{name}"


@contextlib.contextmanager
def _locked(venv: Path) -> Iterator[None]:
    """Hold the environment's lock, a file beside it: one inside would keep it from being remade."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with venv.with_name(venv.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _works(python: Path) -> bool:
    """Whether the interpreter starts: one whose base Python was upgraded away does not."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _make(venv: Path) -> None:
    """Try each way in turn, the quickest first; leave nothing half-made behind.

    Raises:
        EnvironmentNotMadeError: no way worked, or something else lies there, which is not touched.
    """
    if venv.is_symlink():
        raise EnvironmentNotMadeError(
            f"{venv} is a link to {venv.readlink()}, where no environment works: remove the link"
        )
    if venv.exists() and not (venv / "pyvenv.cfg").exists() and any(venv.iterdir()):
        raise EnvironmentNotMadeError(
            f"{venv} is no environment and not empty: point RUNKON_VENV elsewhere, or remove it"
        )
    ways: list[list[str]] = []
    if uv := shutil.which("uv"):
        ways.append([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
    if _offers("ensurepip"):
        ways.append([sys.executable, "-m", "venv", str(venv)])
    if _offers("pip"):
        ways.append([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    if _offers("virtualenv"):
        ways.append([sys.executable, "-m", "virtualenv", "--quiet", str(venv)])
    reasons = []
    for way in ways:
        shutil.rmtree(venv, ignore_errors=True)
        done = subprocess.run(way, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        reasons.append(f"{' '.join(way)}:\n{done.stdout}{done.stderr}")
    shutil.rmtree(venv, ignore_errors=True)
    raise EnvironmentNotMadeError("\n".join([*reasons, NO_WAY]))


def _install(venv: Path, requirements: Sequence[str]) -> None:
    """Install with uv, the environment's own pip or the base Python's, whichever succeeds first."""
    python = str(python_of(venv))
    ways: list[list[str]] = []
    if uv := shutil.which("uv"):
        ways.append([uv, "pip", "install", "--quiet", "--python", python])
    if _offers("pip", python):
        ways.append([python, "-m", "pip", "install", "--quiet"])
    elif _offers("pip"):
        ways.append([sys.executable, "-m", "pip", "--python", python, "install", "--quiet"])
    if not ways:
        raise EnvironmentNotMadeError(NO_WAY)
    for way in ways:
        done = subprocess.run([*way, *requirements], env={**os.environ, **_QUIET}, check=False)
        if done.returncode == 0:
            return
    raise EnvironmentNotMadeError(f"installing into {venv} failed, see above")


def _offers(module: str, python: str = sys.executable) -> bool:
    """Whether that interpreter can run the module: distributions ship some of them hollow."""
    command = [python, "-m", module, "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
