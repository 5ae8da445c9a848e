"""What the workers of a server offer, and the server itself, as a check wants to know it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runkon_server.dsl.ast import Pairs
    from runkon_server.dsl.checking.world import Provider, World

ANY_OTHER: Final = "*"
"""The action of a worker that serves whatever no other does."""
BUILT_IN_ACTIONS: Final = ("echo", "sleep")
"""What every server does itself, in the namespace `BUILT_IN_NAMESPACE`."""
BUILT_IN_NAMESPACE: Final = "default"
DECIDED_BY_OTHERS: Final = ("human_approval", "human_review", "pr_approval", "pr_checks")
"""Types of gates that need no worker: people decide them, or reports about a pull request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What one worker serves, or several of one namespace together."""

    actions: frozenset[str] = frozenset()
    item_providers: frozenset[str] = frozenset()
    gate_types: frozenset[str] = frozenset()
    scripts: bool = False


@dataclass(frozen=True, slots=True)
class Lenient:
    """A provider of which only the name is known: it may take anything."""

    knows_order: bool = True
    filter_example: str | None = None

    def scope_error(self, scope: Pairs | None) -> str | None:  # noqa: ARG002 - the protocol
        """None: it may take it."""
        return None

    def scope_remarks(self, scope: Pairs | None) -> tuple[str, ...]:  # noqa: ARG002 - the protocol
        """None are known."""
        return ()

    def filter_error(self, filter_: Pairs) -> str | None:  # noqa: ARG002 - the protocol
        """None: it may take it."""
        return None


BUILT_IN_PROVIDERS: Final[Mapping[str, Provider]] = {
    "list": Lenient(),
    "workflow_runs": Lenient(knows_order=False),
}
"""What every server provides itself, in all namespaces."""


def together(offers: Iterable[Offers]) -> Offers:
    """What any of them serves."""
    found = list(offers)
    return Offers(
        actions=frozenset().union(*(each.actions for each in found)),
        item_providers=frozenset().union(*(each.item_providers for each in found)),
        gate_types=frozenset().union(*(each.gate_types for each in found)),
        scripts=any(each.scripts for each in found),
    )


def served_actions(names: Iterable[str], namespace: str = BUILT_IN_NAMESPACE) -> list[str] | None:
    """These actions and what the server does itself; None if any other is served as well."""
    actions = set(names)
    if ANY_OTHER in actions:
        return None
    built_in = BUILT_IN_ACTIONS if namespace == BUILT_IN_NAMESPACE else ()
    return [*sorted(actions), *built_in]


def where_served(world: World, offers: Offers, namespace: str) -> World:
    """The world in which all that is served is what it names itself, and these offers.

    Args:
        namespace: of the workers.
    """
    types = (*(world.gate_types or ()), *DECIDED_BY_OTHERS, *sorted(offers.gate_types))
    provided = {name: Lenient() for name in sorted(offers.item_providers)}
    return replace(
        world,
        actions=served_actions((*(world.actions or ()), *offers.actions), namespace),
        gate_types=types,
        providers={**BUILT_IN_PROVIDERS, **provided, **(world.providers or {})},
        executes_scripts=bool(world.executes_scripts) or offers.scripts,
    )
