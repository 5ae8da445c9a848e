"""The prompt of an agent, put together in the order that the original engine used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_client.worker.agents.files import Agent
    from runkon_client.worker.task import Task

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}", re.ASCII)
_INPUTS: Final = "inputs."
_PLAN_PATH: Final = "fsm_path"
_VALUE_CHARS_MAX: Final = 4_000
"""Of a value in the list of variables; where the agent's own text names it, it stands whole."""

_DRY_RUN: Final = """This is a dry run. Change nothing: do not edit files, commit, push, open or
change pull requests or issues, or write to any service. Say what you would do instead."""
_FOCUS: Final = """You do one step of a workflow. Do what is asked below and nothing else; other
steps come before and after yours."""
_BLOCK: Final = """When you are done, end your answer with this block, and nothing behind it:

<<<FLOW_OUTPUT>>>
{example}
<<<END_FLOW_OUTPUT>>>
"""
_PLAIN_EXAMPLE: Final = '{"markers": [], "context": "what the steps after yours should know"}'
_PLAIN: Final = """`markers` is a list of words that the workflow's conditions look for: name only
those that your task asks for, when they hold. `context` is what the steps after yours are told."""
_SCHEMA: Final = """The object must have the fields that the following description (YAML) asks for,
all that are not marked as optional, with values of these types:"""


def assemble(agent: Agent, task: Task) -> str:
    """The whole prompt of one attempt: notices, the agent's text, variables, snippets, the ending.

    Placeholders in the agent's text stand for the step's variables; one without a value vanishes.
    """
    return "\n\n".join(part.strip() for part in _parts(agent, task) if part.strip()) + "\n"


def _parts(agent: Agent, task: Task) -> Iterator[str]:
    if task.dry_run and agent.can_commit:
        yield _DRY_RUN
    if task.retry_error:
        yield f"An attempt before this one failed. Avoid that this time:\n\n{task.retry_error}"
    yield _FOCUS
    yield substitute(agent.prompt, task.inputs)
    if plan := task.inputs.get(_PLAN_PATH):
        yield f"Before anything else, read the file {plan} first."
    if task.inputs:
        yield "Variables of this step:\n\n" + "\n".join(_variables(task.inputs))
    for snippet in task.snippets:
        yield snippet.text
    schema = task.output_schema
    if schema is None:
        yield f"{_BLOCK.format(example=_PLAIN_EXAMPLE)}\n{_PLAIN}"
    else:
        example = "{ … one JSON object … }"
        yield f"{_BLOCK.format(example=example)}\n{_SCHEMA}\n\n{schema.source.strip()}"


def _variables(values: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(values.items()):
        shown = value
        if len(value) > _VALUE_CHARS_MAX:
            shown = f"{value[:_VALUE_CHARS_MAX]}… ({len(value):,} characters in all)"
        yield f"- {name}: {shown}"


def substitute(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders filled in, in one pass: no value is looked through again."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in values:
            return values[name]
        return values.get(name.removeprefix(_INPUTS), "")

    return _PLACEHOLDER.sub(value, text)
