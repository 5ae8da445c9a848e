"""Scripts as tasks: the thin layer between the wire and the runner."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from runkon_client.decode import decode_span
from runkon_client.worker.actions import ActionOutput, FinalError, RetryableError
from runkon_client.worker.scripts import Script
from runkon_client.worker.task import Task

if TYPE_CHECKING:
    from runkon_client.worker.scripts import ScriptRunner

SCRIPT_FAILED: Final = "SCRIPT_FAILED"
_log: Final = logging.getLogger("runkon_client.worker")


class ScriptTask(Task):
    """A script is to be executed."""

    __slots__ = ()

    @property
    def script(self) -> Script:
        """The script with its environment."""
        work = self._lease.script
        return Script(
            name=self.action,
            text=work.text,
            environment=dict(work.environment),
            identity=self.identity,
            timeout_s=decode_span(work.timeout).total_seconds()
            if work.HasField("timeout")
            else None,
        )


ScriptServer: TypeAlias = Callable[[ScriptTask], Awaitable[ActionOutput]]


def serve_scripts(runner: ScriptRunner) -> ScriptServer:
    """What executes script tasks, for `Actions.scripts`."""

    async def serve(task: ScriptTask) -> ActionOutput:
        script = task.script
        outcome = await runner.run(script)
        _log.info(
            "script %s of run %s %s, after %.1f s",
            script.name, task.run_id, outcome.how, outcome.duration_s,
        )  # fmt: skip
        if outcome.is_success:
            # How to read it is the server's business: the same for every language.
            metadata = {"duration_ms": round(outcome.duration_s * 1000)}
            return ActionOutput(raw_output=outcome.stdout, metadata=metadata)
        kind = RetryableError if outcome.retryable else FinalError
        raise kind(
            outcome.failure_text(f"script {script.name}"), code=outcome.code or SCRIPT_FAILED
        )

    return serve
