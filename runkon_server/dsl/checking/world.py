"""What a check may know beyond the text of one workflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from runkon_server.dsl.ast import Definition, Pairs

    Loader: TypeAlias = Callable[[str], Definition | str]


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
class World:
    """Where a workflow will run. What is None is not known, and nothing is concluded from it."""

    load: Loader | None = None
    """Gives the workflow of a name, or a text that says why it cannot. Asked once per name."""
    providers: Mapping[str, Provider] | None = None
    targets: Collection[str] | None = None
    """Allowed words in `targets`."""
    actions: Collection[str] | None = None
    """Agents, by the full text of their reference, that some worker serves."""
    gate_types: Collection[str] | None = None
    """Types of gates that somebody resolves, other than `quality_gate`."""


NOWHERE_IN_PARTICULAR = World()


class Library:
    """The workflows that a check has seen so far, each loaded once."""

    def __init__(self, load: Loader | None) -> None:
        self._load = load
        self._known: dict[str, Definition | str] = {}

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
