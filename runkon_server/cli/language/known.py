"""`--known FILE`: what there is where the workflows will run, told in TOML.

    actions = ["build", "ops/scan.md"]
    gate_types = ["human_approval", "human_review", "deploy"]
    targets = ["repo", "worktree"]
    identities = ["release-bot"]
    snippets = ["house-style"]
    schemas = ["verdict"]
    scripts = true

    [providers.tickets]
    scope = ["team"]
    filter = ["state", "label"]
    filter_example = '{ state = "open" }'
    ordered = true

Every key may be left out, and then nothing is concluded about it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_server.cli.language.files import UnreadableError, read_text
from runkon_server.dsl.check import World
from runkon_server.dsl.diagnostics import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.dsl.ast import Pairs

_LISTS: Final = ("actions", "gate_types", "targets", "identities", "snippets", "schemas")
_PROVIDERS: Final = "providers"
_SCRIPTS: Final = "scripts"
"""Whether somebody executes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """A provider as the file describes it: by the keys that it takes."""

    scope: tuple[str, ...] = ()
    filter: tuple[str, ...] = ()
    filter_example: str | None = None
    """How a filter may look, if one must be given."""
    ordered: bool = False

    @property
    def knows_order(self) -> bool:
        """Whether its items can depend on each other."""
        return self.ordered

    def scope_error(self, scope: Pairs | None) -> str | None:
        """One that takes no scope refuses an empty one as well."""
        if scope is not None and not self.scope:
            return "it takes none"
        return _unknown(scope or (), self.scope)

    def scope_remarks(self, scope: Pairs | None) -> tuple[str, ...]:  # noqa: ARG002 - the protocol
        """None: the file has no place for them."""
        return ()

    def filter_error(self, filter_: Pairs) -> str | None:
        """Any key that the file does not name."""
        return _unknown(filter_, self.filter)


def _unknown(given: Pairs, known: tuple[str, ...]) -> str | None:
    for key, _ in given:
        if key not in known:
            hint = did_you_mean(key, known)
            return f"it knows no `{key}`" + (f"; {hint}" if hint else "")
    return None


def read_known(path: str) -> World:
    """What the file tells.

    Raises:
        UnreadableError: it cannot be read, or has keys or values that it should not have.
    """
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as reason:
        raise UnreadableError(path, f"is not TOML: {reason}") from reason
    _refuse_unknown(path, table, (*_LISTS, _SCRIPTS, _PROVIDERS))
    actions, gate_types, targets, identities, snippets, schemas = (
        _texts(path, table, key) for key in _LISTS
    )
    providers, scripts = table.get(_PROVIDERS), table.get(_SCRIPTS)
    if not isinstance(scripts, bool | None):
        raise UnreadableError(path, f"`{_SCRIPTS}` must be true or false")
    return World(
        actions=actions,
        gate_types=gate_types,
        targets=targets,
        executes_scripts=scripts,
        identities=identities,
        snippets=snippets,
        schemas=None if schemas is None else dict.fromkeys(schemas),
        providers=None if providers is None else _providers(path, providers),
    )


def _providers(path: str, table: object) -> dict[str, KnownProvider]:
    if not isinstance(table, dict):
        raise UnreadableError(path, f"`{_PROVIDERS}` must be a table")
    return {name: _provider(path, each) for name, each in table.items()}


def _provider(path: str, table: Mapping[str, Any]) -> KnownProvider:
    _refuse_unknown(path, table, tuple(KnownProvider.__dataclass_fields__))
    example, ordered = table.get("filter_example"), table.get("ordered", False)
    if not isinstance(example, str | None) or not isinstance(ordered, bool):
        raise UnreadableError(path, "`filter_example` must be a text, `ordered` true or false")
    return KnownProvider(
        scope=_texts(path, table, "scope") or (),
        filter=_texts(path, table, "filter") or (),
        filter_example=example,
        ordered=ordered,
    )


def _refuse_unknown(path: str, table: object, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise UnreadableError(path, "a provider must be a table")
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"known are {', '.join(known)}"
            raise UnreadableError(path, f"has an unknown key `{key}`: {hint}")


def _texts(path: str, table: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    found = table.get(key)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise UnreadableError(path, f"`{key}` must be a list of texts")
    return tuple(found)
