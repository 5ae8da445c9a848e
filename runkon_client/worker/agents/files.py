"""Agents as files: `agents/plan.md`, a prompt with a head of YAML between two lines of `---`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX: Final = ".md"
_FENCE: Final = "---"
_BYTES_MAX: Final = 1 << 20


class AgentFileError(Exception):
    """A file that cannot be used as an agent; the text names it and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A prompt, and what its head says about it. Other keys of the head are for other programs."""

    name: str
    prompt: str
    """With `{{placeholders}}`."""
    model: str = ""
    """Empty: the command's own choice."""
    role: str = ""
    can_commit: bool = False
    """Whether it may change the repository; such an agent is told so in a dry run."""


def read_agent(path: Path) -> Agent:
    """The agent of a file.

    Raises:
        AgentFileError: the file cannot be read, is no UTF-8 text of at most 1 MiB, or its head is
            no map, or has a key of a wrong type.
    """
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise AgentFileError(f"{path}: {reason.strerror}") from reason
    if len(data) > _BYTES_MAX:
        raise AgentFileError(f"{path}: larger than {_BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise AgentFileError(f"{path}: not a UTF-8 text") from reason
    head, prompt = _split(path, text.replace("\r\n", "\n"))
    return Agent(
        name=path.stem,
        prompt=prompt.strip(),
        model=_text(path, head, "model"),
        role=_text(path, head, "role"),
        can_commit=_flag(path, head, "can_commit"),
    )


def _split(path: Path, text: str) -> tuple[dict[object, object], str]:
    lines = text.split("\n")
    if lines[0].rstrip() != _FENCE:
        return {}, text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        raise AgentFileError(f"{path}:1: the head has no end; a line `---` closes it")
    try:
        head = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, RecursionError) as reason:
        mark = getattr(reason, "problem_mark", None)
        line_number = 1 if mark is None else mark.line + 2
        what = getattr(reason, "problem", None) or "it is nested too deeply"
        raise AgentFileError(f"{path}:{line_number}: the head is no YAML: {what}") from reason
    if head is None:
        head = {}
    if not isinstance(head, dict):
        raise AgentFileError(f"{path}:2: the head must be a map, such as `model: opus`")
    return head, "\n".join(lines[end + 1 :])


def _text(path: Path, head: dict[object, object], key: str) -> str:
    found = head.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise AgentFileError(f"{path}: `{key}` must be a text")
    return found


def _flag(path: Path, head: dict[object, object], key: str) -> bool:
    found = head.get(key, False)
    if not isinstance(found, bool):
        raise AgentFileError(f"{path}: `{key}` must be true or false")
    return found
