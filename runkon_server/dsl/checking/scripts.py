"""Whether scripts can take the values they name, are where they should be, and can be executed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Script
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.shell import effort, read_shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.checking.world import ScriptFinder, ScriptLookup
    from runkon_server.dsl.diagnostics import Diagnostic

_WORD: Final = re.compile(
    r"""\s*((?:[^\s'"\\;&|<>()]++|\\.|'[^']*+'|"(?:[^"\\]|\\.)*+")++)""", re.DOTALL
)
_QUOTED: Final = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_EXPANDED: Final = frozenset("$`*?[~")
_EXECUTABLE: Final = 0o111
_SHOWN: Final = 60
_EFFORT_MAX: Final = 10_000
"""Signs of the shell, in all scripts of a workflow, that are looked at: some 20 ms."""


def check_placeholders(definition: Definition) -> Iterator[Diagnostic]:
    """Find the placeholders in scripts that no value can be handed over to.

    Behind very many signs of the shell in scripts with placeholders nothing is looked at any more;
    there the step itself fails.
    """
    left = _EFFORT_MAX
    for node in all_nodes(definition):
        if isinstance(node, Script):
            left -= effort(node.run)
            if left < 0:
                return
            if (problem := read_shell(node.run).problem) is not None:
                message = f"script `{node.name}` would fail: {problem}"
                hint = "assign the value first, as in `value={{name}}`, and use `$value` there"
                yield diagnostic(codes.MISPLACED_PLACEHOLDER, node.span, message, hint=hint)


def check_scripts(definition: Definition, find: ScriptFinder | None) -> Iterator[Diagnostic]:
    """Check the program that each script starts with, if its text names it by a path.

    A word without a slash is a command that the shell knows or finds, and what holds a
    placeholder is known only in a run.
    """
    if find is None:
        return
    for node in all_nodes(definition):
        if isinstance(node, Script):
            path = program_path(node.run)
            if path is not None:
                yield from _check_path(node, path, find)


def program_path(run: str) -> str | None:
    """The path of the program that a shell command begins with.

    None if that is no path, or depends on the shell or on variables.
    """
    if "{{" in run:
        return None
    position = 0
    while (match := _WORD.match(run, position)) is not None:
        word = match[1]
        if not _ASSIGNMENT.match(word):
            if "/" not in word or not _EXPANDED.isdisjoint(word):
                return None
            return _QUOTED.sub(lambda found: found[1] or found[2] or found[3] or "", word)
        position = match.end()
    return None


def _check_path(node: Script, path: str, find: ScriptFinder) -> Iterator[Diagnostic]:
    shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
    what = f"`{node.name}` runs `{shown}`"
    if path.startswith("/"):
        message = f"{what}, but absolute paths are not allowed"
        hint = "give a path below the folder that scripts run in"
        yield diagnostic(codes.SCRIPT_NOT_FOUND, node.span, message, hint=hint)
    elif ".." in path:
        message = f"{what}, which may lie outside of the folder that scripts run in"
        hint = "give a path without `..`"
        yield diagnostic(codes.SCRIPT_NOT_FOUND, node.span, message, hint=hint)
    else:
        yield from _check_found(node, what, find(path))


def _check_found(node: Script, what: str, lookup: ScriptLookup) -> Iterator[Diagnostic]:
    if lookup.found is None:
        message, hint = f"{what}, which is not there", f"looked for {', '.join(lookup.searched)}"
        yield diagnostic(codes.SCRIPT_NOT_FOUND, node.span, message, hint=hint)
    elif lookup.mode is None:
        message = f"{what}, but {lookup.found} cannot be looked at: {lookup.reason}"
        yield diagnostic(codes.SCRIPT_UNREADABLE, node.span, message)
    elif not lookup.is_file:
        message = f"{what}, but {lookup.found} is not a file"
        yield diagnostic(codes.SCRIPT_NOT_FOUND, node.span, message)
    elif not lookup.mode & _EXECUTABLE:
        message = f"{what}, but {lookup.found} is not executable: its mode is {lookup.mode:04o}"
        hint = f"`chmod +x {lookup.found}`"
        yield diagnostic(codes.SCRIPT_NOT_EXECUTABLE, node.span, message, hint=hint)
