"""Running scripts: a process tree of its own for each, and nothing of it left at the end."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runkon_client.worker.scripts.environment import build_environment
from runkon_client.worker.scripts.execution import Program, execute, not_run
from runkon_client.worker.scripts.paths import ScriptPathError, check_script
from runkon_client.worker.scripts.sandbox import HOME, NO_SANDBOX, SHELL
from runkon_client.worker.scripts.script import ScriptLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_client.worker.scripts.sandbox import Sandbox, View
    from runkon_client.worker.scripts.script import Script, ScriptOutcome

_log: Final = logging.getLogger("runkon_client.worker")

REFUSED: Final = "SCRIPT_REFUSED"


class ScriptRunner:
    """Runs scripts in one folder, with one view of the machine."""

    def __init__(
        self,
        view: View,
        *,
        sandbox: Sandbox = NO_SANDBOX,
        passed: Mapping[str, str] | None = None,
        passed_to: Mapping[str, Mapping[str, str]] | None = None,
        limits: ScriptLimits | None = None,
    ) -> None:
        self._view = view
        self._sandbox = sandbox
        self._passed = dict(passed or {})
        self._passed_to = dict(passed_to or {})
        self._limits = limits or ScriptLimits()

    async def run(self, script: Script) -> ScriptOutcome:
        """Run a script to its end, whatever that is.

        Cancelling it ends the script with SIGTERM and, after the grace, SIGKILL; the cancellation
        goes on when every process of the script is gone.
        """
        try:
            text = check_script(script.text, self._view.folder)
        except ScriptPathError as error:
            return not_run(f"was refused: {error}", REFUSED)
        environment = build_environment(
            passed={**self._passed, **self._passed_to.get(script.identity, {})},
            asked=script.environment,
        )
        if environment.dropped:
            names = ", ".join(map(repr, environment.dropped))
            _log.warning("script %s: variables not set: %s", script.name, names)
        for name in environment.too_large:
            if name in text:
                return not_run(
                    f"was refused: {name} has over 128 KiB, which no variable holds", REFUSED
                )
            _log.warning("script %s: value too large to set: %s", script.name, name)
        outcome = await self._run_at_home(script, text, environment.variables)
        return replace(outcome, left_out=tuple(environment.too_large))

    async def _run_at_home(
        self, script: Script, text: str, variables: Mapping[str, str]
    ) -> ScriptOutcome:
        if not self._sandbox.is_none:
            return await self._launch(script, text, {**variables, **_at_home(HOME)})
        home = tempfile.mkdtemp(prefix="runkon-script-")
        try:
            return await self._launch(script, text, {**variables, **_at_home(home)}, home)
        finally:
            # The launcher has removed it, unless it was killed: then there is something to do.
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    async def _launch(
        self, script: Script, text: str, environment: Mapping[str, str], home: str = ""
    ) -> ScriptOutcome:
        resources = resources_of(self._limits)
        if not self._sandbox.is_none:
            # Without a namespace it would count every process of the user.
            resources["RLIMIT_NPROC"] = self._limits.processes_max
        program = Program(
            argv=self._sandbox.wrap([SHELL, "-c", text], self._view),
            environment=environment,
            folder=self._view.folder,
            resources=resources,
            home=home,
        )
        return await execute(program, self._limits, timeout_s=script.timeout_s)


def resources_of(limits: ScriptLimits) -> dict[str, int]:
    """The limits of each process, by the names of Python's `resource`."""
    return {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": limits.memory_max_bytes,
        "RLIMIT_FSIZE": limits.file_max_bytes,
        "RLIMIT_NOFILE": limits.open_files_max,
    }


def _at_home(home: str) -> dict[str, str]:
    return {"HOME": home, "TMPDIR": home}
