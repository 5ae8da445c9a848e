"""Queues: a label of a run that says which workers are given its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DEFAULT_QUEUE",
    "DEFAULT_QUEUE_NAME",
    "EVERY_QUEUE",
    "QUEUE_LABEL",
    "display_queue",
    "queue_of",
    "served_queues",
]

QUEUE_LABEL: Final = "queue"
DEFAULT_QUEUE: Final = ""
"""Of runs that name none, and of workers that name none."""
DEFAULT_QUEUE_NAME: Final = "default"
"""The default queue in the words of people: it means the same as no name."""
EVERY_QUEUE: Final = "*"
"""What a worker says that serves all of them; no run can be in a queue of that name."""


def queue_of(labels: Mapping[str, str]) -> str:
    """The queue of all tasks of a run that has these labels."""
    return _plain(labels.get(QUEUE_LABEL, DEFAULT_QUEUE))


def served_queues(names: Iterable[str]) -> frozenset[str]:
    """The queues of a worker that gives these names: those, the default one, or `*` alone."""
    queues = frozenset(map(_plain, names)) or frozenset({DEFAULT_QUEUE})
    return frozenset({EVERY_QUEUE}) if EVERY_QUEUE in queues else queues


def display_queue(queue: str) -> str:
    """A queue's name for people."""
    return queue or DEFAULT_QUEUE_NAME


def _plain(name: str) -> str:
    return DEFAULT_QUEUE if name == DEFAULT_QUEUE_NAME else name
