"""How agent references are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes, limits
from runkon_server.dsl.ast import AgentKind, AgentRef

if TYPE_CHECKING:
    from runkon_server.dsl.problems import Problems
    from runkon_server.dsl.reading.values import Text


def agent_ref(text: Text, problems: Problems, *, after_call: bool) -> AgentRef:
    """What a word or a quoted text refers to.

    One rule for both places: quoted text is a path if it has a `/` or ends in `.md`; everything
    else is a name.

    Args:
        text: as written.
        problems: told of references that cannot work, and of those older versions read otherwise.
        after_call: whether it stands behind `call`, not `on_fail =`.
    """
    value = text.text
    is_path = text.quoted and ("/" in value or value.endswith(".md"))
    complaint = _path_complaint(value) if is_path else _name_complaint(value)
    if complaint is not None:
        problems.report(codes.BAD_AGENT, text.start, text.end, complaint)
    elif not is_path and len(value) > limits.NAME_LENGTH:
        problems.report(
            codes.NAME_TOO_LONG,
            text.start,
            text.end,
            f"this name has {len(value)} characters; {limits.NAME_LENGTH} are allowed",
        )
    elif text.quoted and after_call and not is_path:
        problems.report(
            codes.AGENT_READING,
            text.start,
            text.end,
            f'"{value}" is read as a name: a path has a `/` or ends in `.md`',
            hint="older versions read any quoted text after `call` as a path",
        )
    elif is_path and not after_call and "/" not in value:
        problems.report(
            codes.AGENT_READING,
            text.start,
            text.end,
            f'"{value}" is read as a path, because it ends in `.md`',
            hint="older versions read it as a name; write it without quotes for that",
        )
    return AgentRef(kind=AgentKind.PATH if is_path else AgentKind.NAME, value=value)


def _path_complaint(path: str) -> str | None:
    if path.startswith("/"):
        return "agent paths are relative to the repository root"
    if ".." in path.split("/"):
        return "agent paths stay inside the repository: no `..`"
    return None


def _name_complaint(name: str) -> str | None:
    return None if name.strip() else "an agent needs a name"
