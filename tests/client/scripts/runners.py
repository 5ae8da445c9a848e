"""Running one text in a test's folder, and finding what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import psutil

from runkon_client.worker.scripts import Sandbox, Script, ScriptLimits, ScriptRunner, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_client.worker.scripts import ScriptOutcome


class Run(Protocol):
    """Runs one text in the test's folder."""

    async def __call__(
        self,
        text: str,
        environment: Mapping[str, str] | None = ...,
        *,
        timeout_s: float | None = ...,
        limits: ScriptLimits | None = ...,
        passed: dict[str, str] | None = ...,
    ) -> ScriptOutcome: ...


def runner_in(sandbox: Sandbox, view: View) -> Run:
    async def run(
        text: str,
        environment: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = 60,
        limits: ScriptLimits | None = None,
        passed: dict[str, str] | None = None,
    ) -> ScriptOutcome:
        runner = ScriptRunner(view, sandbox=sandbox, limits=limits, passed=passed)
        script = Script(name="s", text=text, environment=environment or {}, timeout_s=timeout_s)
        return await runner.run(script)

    return run


def processes_with(mark: str, name: str = "") -> list[psutil.Process]:
    """Processes that carry the mark in their command line or environment; zombies are dead.

    Args:
        mark: a text that only the processes of one test have.
        name: of the program; empty: any.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or name not in ("", process.name()):
                continue
            if any(mark in word for word in process.cmdline()) or mark in process.environ():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
