"""What a check may know beyond the text of one workflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from runkon_server.dsl.ast import Definition, Pairs

    Loader: TypeAlias = Callable[[str], Definition | str | None]
    ScriptFinder: TypeAlias = Callable[[str], "ScriptLookup"]


class Provider(Protocol):
    """What a check asks the provider of a foreach's items."""

    @property
    def knows_order(self) -> bool:
        """Whether its items can depend on each other."""

    @property
    def filter_example(self) -> str | None:
        """How a filter may look, if one must be given; None if it need not."""

    def scope_error(self, scope: Pairs | None) -> str | None:
        """Why it does not take this scope."""

    def scope_remarks(self, scope: Pairs | None) -> tuple[str, ...]:
        """What it has to say about a scope that it takes."""

    def filter_error(self, filter_: Pairs) -> str | None:
        """Why it does not take this filter, which is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptLookup:
    """What a file system says about the path of a script."""

    searched: tuple[str, ...]
    """Every place that was looked at, in order."""
    found: str | None = None
    """The place where something is; None: nowhere."""
    mode: int | None = None
    """Its permission bits; None: `reason` says why they are not known."""
    is_file: bool = True
    """Whether it is a regular file, not a directory or a device."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where a workflow will run. What is None is not known, and nothing is concluded from it."""

    load: Loader | None = None
    """Gives the workflow of a name, a text that says why there is none, or None if it cannot tell.

    Asked once per name.
    """
    members: Collection[str] = ()
    """Workflows that are checked too: what is wrong inside them is not said at their callers."""
    providers: Mapping[str, Provider] | None = None
    targets: Collection[str] | None = None
    """Allowed words in `targets`."""
    actions: Collection[str] | None = None
    """Agents, by the full text of their reference, that some worker serves; None also if there is
    a worker that serves any."""
    gate_types: Collection[str] | None = None
    """Types of gates that somebody resolves, other than `quality_gate`."""
    executes_scripts: bool | None = None
    """Whether some worker executes scripts."""
    scripts: ScriptFinder | None = None
    """Looks for a relative path without `..` where scripts lie, never outside of it."""
    snippets: Collection[str] | None = None
    """Prompt snippets by the names that `with` uses."""
    schemas: Mapping[str, str | None] | None = None
    """Output schemas by the names that `output` uses: why one cannot be used, None if it can."""
    identities: Collection[str] | None = None
    """Whom steps may run as."""


NOWHERE_IN_PARTICULAR = World()


class Library:
    """The workflows that a check has seen so far, each loaded once."""

    def __init__(self, load: Loader | None) -> None:
        self._load = load
        self._known: dict[str, Definition | str | None] = {}

    @property
    def is_open(self) -> bool:
        """Whether other workflows can be looked at."""
        return self._load is not None

    def find(self, name: str) -> Definition | str | None:
        """The workflow of a name, why there is none, or None if nobody can tell."""
        if self._load is None:
            return None
        if name not in self._known:
            self._known[name] = self._load(name)
        return self._known[name]
