"""Item providers: the functions that find what a `foreach` goes over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from runkon_client.worker.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to start a child run for; limits as in the contract's Item."""

    id: str
    """Identity, unique in the list."""
    type: str = ""
    """A word of the provider's own."""
    ref: str = ""
    """Readable reference, for people."""
    context: Mapping[str, str] = field(default_factory=dict)
    """What the child run is given as `item.KEY` inputs, besides `item.id` and `item.ref`."""
    depends_on: tuple[str, ...] = ()
    """Identities of the items that have to end first; used where `ordered` is asked for."""


class ItemsTask(Task):
    """The items of one `foreach` are asked for. What holds for every task holds here as well."""

    __slots__ = ()

    @property
    def provider(self) -> str:
        """Name of the provider, as the definition's `over` says."""
        return self._lease.items.provider

    @property
    def scope(self) -> Mapping[str, str] | None:
        """The definition's `scope`, which may be empty; None if it has none.

        A provider that cannot do anything with a scope refuses it with a `FinalError`.
        """
        return dict(self._lease.items.scope) if self._lease.items.has_scope else None

    @property
    def filter(self) -> Mapping[str, str]:
        """The definition's `filter`; empty if it has none."""
        return dict(self._lease.items.filter)

    @property
    def ordered(self) -> bool:
        """Whether `depends_on` counts; a provider that knows no order raises a `FinalError`."""
        return self._lease.items.ordered

    @property
    def items_max(self) -> int:
        """Most items that are taken."""
        return self._lease.items.items_max


ItemsResult: TypeAlias = Iterable[Item]
"""All items, in the order in which they are to be started; there may be none."""

ItemProvider: TypeAlias = Callable[
    [ItemsTask], ItemsResult | Awaitable[ItemsResult] | AsyncIterator[Item]
]
