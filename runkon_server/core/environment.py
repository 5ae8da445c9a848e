"""The variables that a script is given: inputs, its definition's own, values of placeholders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.core.variables import text_variables
from runkon_server.dsl.reserved import ENGINE_VARIABLES
from runkon_server.dsl.shell import REFERENCE_PREFIX
from runkon_server.dsl.substitute import (
    ExpansionTooLargeError,
    UnresolvedPlaceholderError,
    lookup,
    substitute,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.core.model import RunState
    from runkon_server.core.plan import ScriptNode

INPUT_PREFIX: Final = "RUNKON_"
VARIABLE_BYTES_MAX: Final = 128 * 1024 - 1
"""One variable with its name, as Linux allows it."""
ENVIRONMENT_BYTES_MAX: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_PROTECTED: Final = frozenset(
    {
        "BASH_ENV", "BASHOPTS", "CDPATH", "ENV", "GH_TOKEN", "GLOBIGNORE", "IFS", "NODE_OPTIONS",
        "NODE_PATH", "PATH", "PERL5LIB", "PERL5OPT", "PS4", "PYTHONPATH", "PYTHONSTARTUP",
        "RUBYLIB", "RUBYOPT", "SHELLOPTS",
    }
)  # fmt: skip
_PROTECTED_PREFIXES: Final = ("BASH_FUNC_", "DYLD_", "GIT_", "LD_", REFERENCE_PREFIX)


class ScriptError(Exception):
    """A script cannot be handed out; the message says why."""


def environment(state: RunState, node: ScriptNode) -> dict[str, str]:
    """The variables of an attempt that starts now, by name.

    Names that would change how programs are found or loaded are left out, as is what cannot be the
    name of a variable, and inputs larger than a variable may be.

    Raises:
        ScriptError: a placeholder has no value, or a value does not fit.
    """
    if node.command.problem is not None:
        raise ScriptError(f"`run` cannot be handed to a shell: {node.command.problem}")
    values = text_variables(state)
    room = ENVIRONMENT_BYTES_MAX
    found: dict[str, str] = {}
    for name, value in _variables(state, node, values):
        room -= len(name) + len(value.encode())
        if room < 0:
            raise ScriptError(f"the variables weigh more than {ENVIRONMENT_BYTES_MAX} bytes")
        found[name] = value
    return found


def _variables(
    state: RunState, node: ScriptNode, values: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """One at a time, so that no more is made than fits; later ones win."""
    yield from _inputs(state)
    for name, template in node.environment:
        if _is_allowed(name):
            yield name, _expanded(name, template, values)
    missing = [name for name in node.command.names if lookup(name, values) is None]
    if missing:
        raise ScriptError(str(UnresolvedPlaceholderError(tuple(missing))))
    for number, name in enumerate(node.command.names, 1):
        value = lookup(name, values) or ""
        if not _fits(name, value):
            raise ScriptError(f"the value of {{{{{name}}}}} is too long for a script's variable")
        yield f"{REFERENCE_PREFIX}{number}", value


def _inputs(state: RunState) -> Iterator[tuple[str, str]]:
    values = {**state.setup.inputs}
    if state.outcome is not None:
        values["workflow_status"] = state.outcome
    for name, value in values.items():
        is_told = name not in ENGINE_VARIABLES or name == "workflow_status"
        if is_told and _NAME.fullmatch(name) and _fits(INPUT_PREFIX + name, value):
            yield INPUT_PREFIX + name.upper(), value


def _is_allowed(name: str) -> bool:
    is_name = _NAME.fullmatch(name) is not None
    return is_name and name not in _PROTECTED and not name.startswith(_PROTECTED_PREFIXES)


def _expanded(name: str, template: str, values: dict[str, str]) -> str:
    try:
        value = substitute(template, values)
    except ExpansionTooLargeError as error:
        raise ScriptError(f"`env` {name}: {error}") from None
    if not _fits(name, value):
        raise ScriptError(f"`env` {name}: the value is too long for a script's variable")
    return value


def _fits(name: str, value: str) -> bool:
    return len(name) + len(value.encode()) < VARIABLE_BYTES_MAX
