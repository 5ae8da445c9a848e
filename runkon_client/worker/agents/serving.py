"""A folder of agents as actions of a worker, `--agents DIR --agent-command '…'`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runkon_client.worker.actions import ActionOutput, FinalError
from runkon_client.worker.agents.files import SUFFIX, AgentFileError, read_agent
from runkon_client.worker.agents.prompt import assemble
from runkon_client.worker.programs.document import large_inputs, variables_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runkon_client.worker.actions import Actions
    from runkon_client.worker.programs.command import CommandLine
    from runkon_client.worker.task import Task

AGENT_INVALID = "AGENT_INVALID"


def add_agents(actions: Actions, folder: Path, command: CommandLine) -> tuple[str, ...]:
    """Execute calls with the agents of a folder, each answered by one run of the command.

    `call plan` is `plan.md` in the folder, and so is `call "agents/plan.md"` if the folder is
    `agents` in the one that the command runs in. The file is read for each task, so changes count
    at once; new files only after a restart. The command gets the prompt by standard input, and in
    its environment `RUNKON_MODEL`, `RUNKON_AGENT` and `RUNKON_PLUGIN_DIRS` beside the variables
    that every program gets. What it prints is the agent's answer: the server reads its last
    FLOW_OUTPUT block.

    Returns:
        The names of the agents.

    Raises:
        ValueError: there is no agent in the folder, one cannot be used, or a name is taken.
    """
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    if not paths:
        raise ValueError(f"{folder}: no agents, which are files `NAME{SUFFIX}`")
    for path in paths:
        try:
            read_agent(path)
        except AgentFileError as reason:
            raise ValueError(str(reason)) from reason
        run = _serve(path, command)
        actions.action(path.stem)(run)
        absolute = path.resolve()
        if absolute.is_relative_to(command.folder.resolve()):
            actions.action(absolute.relative_to(command.folder.resolve()).as_posix())(run)
    return tuple(path.stem for path in paths)


def _serve(path: Path, command: CommandLine) -> Callable[[Task], Awaitable[ActionOutput]]:
    async def run(task: Task) -> ActionOutput:
        try:
            agent = await asyncio.to_thread(read_agent, path)
        except AgentFileError as reason:
            raise FinalError(str(reason), code=AGENT_INVALID) from reason
        variables = variables_of(task) | {
            "RUNKON_AGENT": agent.name,
            "RUNKON_MODEL": agent.model,
            "RUNKON_PLUGIN_DIRS": ":".join(task.plugin_dirs),
        }
        prompt = assemble(agent, task).encode("utf-8", "replace")
        printed = await command.run(
            f"agent {agent.name}",
            standard_input=prompt,
            variables=variables,
            large=large_inputs(task),
        )
        # How to read an agent's answer is the server's business: the same for every language.
        return ActionOutput(raw_output=printed.text, metadata=printed.metadata)

    return run
