"""Which pull request a run is about: read from its variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWNER: Final = r"(?P<owner>[A-Za-z0-9][A-Za-z0-9-]{0,99})"
_REPOSITORY: Final = r"(?P<repository>[A-Za-z0-9._-]{1,100})"
_NUMBER: Final = r"(?P<number>[1-9][0-9]{0,9})"
_URL: Final = re.compile(
    rf"https://(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/{_OWNER}/{_REPOSITORY}/pull/{_NUMBER}"
    r"(?:[/?#].*)?",
    re.ASCII,
)
_SHORT: Final = re.compile(rf"{_OWNER}/{_REPOSITORY}#{_NUMBER}", re.ASCII)
_NAMES: Final = ("pull_request", "pr_url", "pr")


class PullRequestReference(NamedTuple):
    """One pull request."""

    owner: str
    repository: str
    number: int

    def __str__(self) -> str:
        return f"{self.owner}/{self.repository}#{self.number}"


class NoPullRequestError(Exception):
    """The variables name no pull request of this forge."""


def find_reference(variables: Mapping[str, str], host: str) -> PullRequestReference:
    """The pull request that a run's variables name.

    The first of `pull_request`, `pr_url` and `pr` that has a value counts: a URL, or
    `OWNER/REPOSITORY#NUMBER`. Without them `repository` (`OWNER/REPOSITORY`) and `pr_number` do.

    Args:
        variables: of the run: inputs, and what its steps have exported.
        host: where people see this forge, such as `github.com`.

    Raises:
        NoPullRequestError: none of them, none that can be read, or one on another host.
    """
    name, text = next(
        ((name, variables[name].strip()) for name in _NAMES if variables.get(name, "").strip()),
        ("repository", f"{variables.get('repository', '')}#{variables.get('pr_number', '')}"),
    )
    found = _URL.fullmatch(text) or _SHORT.fullmatch(text)
    if found is None:
        if text == "#":
            raise NoPullRequestError(f"no variable {' or '.join(_NAMES)} names a pull request")
        raise NoPullRequestError(f"the variable {name} names no pull request")
    parts = found.groupdict()
    if parts.get("host", host).lower() != host.lower():
        raise NoPullRequestError(f"the pull request is not on {host}")
    if parts["repository"] in (".", ".."):
        raise NoPullRequestError(f"the variable {name} names no pull request")
    return PullRequestReference(parts["owner"], parts["repository"], int(parts["number"]))
