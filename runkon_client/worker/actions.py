"""Actions: the functions that a worker executes, by the name that `call` uses."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from runkon_client.worker.task import Task

FALLBACK: Final = "*"
_NAME_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutput:
    """What an action came to; limits as in the contract's StepResult.

    Every field is taken as it is; `result_text` is not searched for a FLOW_OUTPUT block yet.
    `structured_output` is anything that JSON can hold, None for nothing. The metric keys of
    `metadata` (`cost_usd`, `num_turns`, `duration_ms`, `input_tokens` …) are summed up per run.
    """

    markers: tuple[str, ...] = ()
    context: str = ""
    result_text: str = ""
    structured_output: object = None
    output_file: str = ""
    metadata: Mapping[str, str | float] = field(default_factory=dict)


ActionResult: TypeAlias = ActionOutput | Mapping[str, object] | str | None
"""What an action may return.

A mapping is the structured output; its `markers` (a list of texts) and `context` (a text) are also
taken as the step's. A text is the result text.
"""

Action: TypeAlias = "Callable[[Task], ActionResult | Awaitable[ActionResult]]"
_A = TypeVar("_A", bound="Action")


class ActionError(Exception):
    """A failure that the action chose; `code` is a stable word of the action's own."""

    retryable = True

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class RetryableError(ActionError):
    """Another attempt may succeed; the step is retried as its definition says."""


class FinalError(ActionError):
    """Another attempt would fail as well, so none is made."""

    retryable = False


class TaskCancelledError(Exception):
    """The task is no longer wanted; raised by `Task.raise_if_cancelled`."""


@dataclass(frozen=True, slots=True)
class RegisteredAction:
    """A function with how it is run: on the event loop, or in a thread."""

    function: Action
    is_async: bool


class Actions:
    """A collection of actions, made by decorating functions.

    A function gets the `Task`. `async def` runs on the worker's event loop and must not block it;
    a plain `def` runs in a thread of a bounded pool.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, RegisteredAction] = {}

    def action(self, name: str) -> Callable[[_A], _A]:
        """Execute the calls of this name with the decorated function.

        Raises:
            ValueError: the name is no identifier of at most 128 bytes, or it is taken.
        """
        if not name or len(name.encode()) > _NAME_BYTES_MAX or name == FALLBACK:
            raise ValueError(f"{name!r} is no name for an action")
        return lambda function: self._add(name, function)

    def fallback(self, function: _A) -> _A:
        """Execute every action that no connected worker names; the task says which it is."""
        return self._add(FALLBACK, function)

    def include(self, others: Actions) -> None:
        """Take over the actions of another collection.

        Raises:
            ValueError: both have an action of the same name.
        """
        for name, registered in others._by_name.items():
            self._add(name, registered.function)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order of their registration; `*` stands for the fallback."""
        return tuple(self._by_name)

    def find(self, name: str) -> RegisteredAction | None:
        """The action of this name, or else the fallback, or else None."""
        return self._by_name.get(name) or self._by_name.get(FALLBACK)

    def _add(self, name: str, function: _A) -> _A:
        if name in self._by_name:
            raise ValueError(f"there is an action {name!r} already")
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
        )
        self._by_name[name] = RegisteredAction(function, is_async)
        return function
