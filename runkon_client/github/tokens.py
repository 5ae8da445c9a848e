"""Whose name to read GitHub in: a token for each identity, and none of them in any text."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log: Final = logging.getLogger("runkon_client.github")
_DEFAULT: Final = "GITHUB_TOKEN"
_PREFIX: Final = "RUNKON_GITHUB_TOKEN_"
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)


class Token:
    """A secret: it shows itself only when it is asked to."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not _TOKEN.fullmatch(value):
            raise ValueError("a token is printable ASCII without blanks")
        self._value = value

    def __repr__(self) -> str:
        return "Token(…)"

    def reveal(self) -> str:
        """The secret itself."""
        return self._value


class UnknownIdentityError(Exception):
    """There is no token for an identity; the default is for steps without one."""


class Tokens:
    """Tokens by the identities that `as` names."""

    def __init__(
        self, default: Token | None = None, by_identity: Mapping[str, Token] | None = None
    ) -> None:
        self._default = default
        self._by_identity = dict(by_identity or {})

    @staticmethod
    def read(environment: Mapping[str, str], file: Path | None = None) -> Tokens:
        """Tokens from a file and the environment; the file wins.

        Args:
            environment: GITHUB_TOKEN is the default, RUNKON_GITHUB_TOKEN_NAME that of identity
                `name`; in NAME whatever is no letter or digit is `_`.
            file: a line `NAME=TOKEN` for each identity; empty lines and `#` comments are skipped.

        Raises:
            ValueError: what is there is no token; the text says where, and nothing of it.
        """
        by_identity: dict[str, Token] = {}
        for name, value in environment.items():
            if name.startswith(_PREFIX):
                by_identity[_normal(name.removeprefix(_PREFIX))] = _token(value, name)
        if file is not None and file.stat().st_mode & 0o077:
            _log.warning("%s can be read by other users of this machine", file)
        lines = [] if file is None else file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                name, _, value = line.partition("=")
                by_identity[_normal(name.strip())] = _token(value.strip(), f"{file}:{number}")
        default = environment.get(_DEFAULT)
        return Tokens(_token(default, _DEFAULT) if default else None, by_identity)

    def of(self, identity: str) -> Token | None:
        """The token of an identity, the default for none; None: nobody in particular.

        Raises:
            UnknownIdentityError: an identity without a token must not act as another.
        """
        if not identity:
            return self._default
        token = self._by_identity.get(_normal(identity))
        if token is None:
            raise UnknownIdentityError(f"there is no token for the identity {identity}")
        return token


def _normal(name: str) -> str:
    """As a variable can spell it."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper(), flags=re.ASCII)


def _token(value: str, where: str) -> Token:
    try:
        return Token(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
