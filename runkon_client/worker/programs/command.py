"""Actions that are commands of the shell, `--exec 'name=command'`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_client.worker.actions import FinalError, RetryableError
from runkon_client.worker.programs.document import describe, large_inputs, variables_of
from runkon_client.worker.programs.output import read_output
from runkon_client.worker.scripts.execution import Program, execute
from runkon_client.worker.scripts.sandbox import SHELL
from runkon_client.worker.scripts.script import ScriptLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_client.worker.actions import ActionOutput, Actions
    from runkon_client.worker.task import Task

PROGRAM_FAILED: Final = "PROGRAM_FAILED"
FILE_SUFFIX: Final = "_FILE"
"""Of the variable that says where a value is that its own variable could not hold."""
EX_DATAERR: Final = 65
"""The exit code that says: another attempt would fail as well. The name is that of sysexits.h."""
_log: Final = logging.getLogger("runkon_client.worker")


class Printed(NamedTuple):
    """What a command that succeeded has printed."""

    text: str
    metadata: Mapping[str, str | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command of the shell, and where and with what it runs.

    It is the operator's own and no sandbox is around it: it runs with the worker's environment and
    all rights of its user. No value of a run is ever put into the command; they come by standard
    input and in variables.
    """

    text: str
    """For `sh -c`."""
    folder: Path = field(default_factory=Path.cwd)
    limits: ScriptLimits = field(default_factory=ScriptLimits)
    """Only those on output and the grace are applied."""

    async def run(
        self,
        name: str,
        *,
        standard_input: bytes,
        variables: Mapping[str, str],
        large: Mapping[str, str],
    ) -> Printed:
        """Run it once; a cancellation ends it with all that it has started.

        Args:
            name: of what it is for, in error texts.
            variables: beside those of the worker itself.
            large: values that no variable can hold, by the variable's name: each is in a file while
                it runs, whose path is in the variable of that name with `_FILE` behind it, unless
                `variables` has another one of that name.

        Raises:
            RetryableError: it did not end with exit code 0.
            FinalError: it ended with exit code 65 (`EX_DATAERR`), or wrote too much.
        """
        with contextlib.ExitStack() as stack:
            files = stack.enter_context(_in_files(large)) if large else {}
            program = Program(
                argv=[SHELL, "-c", self.text],
                environment={**os.environ, **files, **variables},
                folder=self.folder,
                resources={"RLIMIT_CORE": 0},
                standard_input=standard_input,
            )
            outcome = await execute(program, self.limits, timeout_s=None)
        _log.info("%s %s, after %.1f s", name, outcome.how, outcome.duration_s)
        if outcome.is_success:
            return Printed(outcome.stdout, {"duration_ms": round(outcome.duration_s * 1000)})
        is_final = outcome.exit_code == EX_DATAERR or not outcome.retryable
        kind = FinalError if is_final else RetryableError
        raise kind(outcome.failure_text(name), code=outcome.code or PROGRAM_FAILED)


@contextlib.contextmanager
def _in_files(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Variables that name a file for each value; the files are there as long as the block."""
    with tempfile.TemporaryDirectory(prefix="runkon-inputs-") as folder:
        variables: dict[str, str] = {}
        for number, (name, value) in enumerate(values.items()):
            path = Path(folder, str(number))
            path.write_bytes(value.encode("utf-8", "replace"))
            variables[name + FILE_SUFFIX] = str(path)
        yield variables


def add_program(actions: Actions, name: str, command: CommandLine) -> None:
    """Execute the calls of this name, or with `*` all that nobody else names, with a command.

    Raises:
        ValueError: the name is empty, too long, or taken.
    """

    async def run(task: Task) -> ActionOutput:
        document = json.dumps(await describe(task), ensure_ascii=False).encode("utf-8", "replace")
        printed = await command.run(
            f"program {task.action}",
            standard_input=document,
            variables=variables_of(task),
            large=large_inputs(task),
        )
        return read_output(printed.text, printed.metadata)

    if name == "*":
        actions.fallback(run)
    else:
        actions.action(name)(run)
