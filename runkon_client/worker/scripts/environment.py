"""The environment of a script: built up from nothing, in layers, each with its rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LEFT_OUT: Final = "RUNKON_LEFT_OUT"
"""Variable with the names of those that are too large, separated by blanks; absent without any."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VALUE_MAX_BYTES: Final = (128 << 10) - 1  # of `NAME=value` with its NUL: Linux takes no more
_PROTECTED: Final = frozenset(
    {
        # Where programs and libraries are found, and what shells and interpreters read at start.
        "PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND",
        "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "RUBYLIB", "RUBYOPT",
        "PERL5LIB", "PERL5OPT", "PERLLIB", "NODE_PATH", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS",
        "CLASSPATH", "GCONV_PATH", "LOCPATH", "HOSTALIASES", "RES_OPTIONS",
        # What the worker itself says.
        "HOME", "TMPDIR",
        # Whose name a script acts in: the operator's to give.
        "GH_TOKEN", "GITHUB_TOKEN",
    }
)  # fmt: skip
_PROTECTED_PREFIXES: Final = ("LD_", "DYLD_", "GIT_", "BASH_FUNC_", "MALLOC_", "GLIBC_")


class Environment(NamedTuple):
    """What a script is started with, and what was left out of it."""

    variables: Mapping[str, str]
    dropped: Sequence[str]
    """Names of the definition's variables that are protected, or no names at all."""
    too_large: Sequence[str]
    """Names whose values no process can be given."""


def is_protected(name: str) -> bool:
    """Whether a definition has no say in this variable."""
    return name in _PROTECTED or name.startswith(_PROTECTED_PREFIXES)


def build_environment(*, passed: Mapping[str, str], asked: Mapping[str, str]) -> Environment:
    """The environment of a script, but for the home that it is given.

    Args:
        passed: what the operator hands on from the worker's environment.
        asked: the definition's variables, inputs and placeholders; they win over what is handed on.
    """
    variables = {"PATH": PATH, "LANG": "C.UTF-8", **passed}
    dropped: list[str] = []
    too_large: list[str] = []
    for name, value in asked.items():
        if is_protected(name) or not _NAME.fullmatch(name) or "\0" in value:
            dropped.append(name)
        elif len(name) + len(value.encode("utf-8", "replace")) + 2 > _VALUE_MAX_BYTES:
            too_large.append(name)
        else:
            variables[name] = value
    if too_large:
        variables[LEFT_OUT] = " ".join(too_large)
    return Environment(variables, dropped, too_large)
