"""The functions that a worker executes: actions, item providers, gate resolvers, scripts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from runkon_client.worker.gates import GateResolver
    from runkon_client.worker.items import ItemProvider
    from runkon_client.worker.script_tasks import ScriptServer
    from runkon_client.worker.task import Task

FALLBACK: Final = "*"
_NAME_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutput:
    """What an action came to; limits as in the contract's StepResult.

    Fields are taken as they are. Whoever has nothing but text to tell, such as the answer of an
    agent, gives it as `raw_output` alone: the server reads markers, context and structured output
    from its last FLOW_OUTPUT block. `structured_output` is anything that JSON can hold, None for
    nothing. The metric keys of `metadata` (`cost_usd`, `num_turns`, `duration_ms`, `input_tokens`
    …) are summed up per run.
    """

    markers: tuple[str, ...] = ()
    context: str = ""
    result_text: str = ""
    structured_output: object = None
    output_file: str = ""
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    raw_output: str = ""


ActionResult: TypeAlias = ActionOutput | Mapping[str, object] | str | None
"""What an action may return.

A mapping is the structured output; its `markers` (a list of texts) and `context` (a text) are also
taken as the step's. A text is the result text.
"""

Action: TypeAlias = "Callable[[Task], ActionResult | Awaitable[ActionResult]]"
Proceed: TypeAlias = "Callable[[], Awaitable[object]]"
"""Goes on with a task: the next middleware, or the function itself."""
Middleware: TypeAlias = "Callable[[Task, Proceed], Awaitable[object]]"
_A = TypeVar("_A", bound="Action")
_M = TypeVar("_M", bound="Middleware")
_I = TypeVar("_I", bound="ItemProvider")
_G = TypeVar("_G", bound="GateResolver")
_F = TypeVar("_F", bound="Callable[[Any], Any]")


class ActionError(Exception):
    """A failure that the action chose; `code` is a stable word of the action's own.

    Both are texts; something else, such as the exception that was the cause, is made one.
    """

    retryable = True

    def __init__(self, message: object, *, code: str | int = "") -> None:
        super().__init__(message)
        self.message = str(message)
        self.code = str(code)


class RetryableError(ActionError):
    """Another attempt may succeed; the step is retried as its definition says."""


class FinalError(ActionError):
    """Another attempt would fail as well, so none is made."""

    retryable = False


class TaskCancelledError(Exception):
    """The task is no longer wanted; raised by `Task.raise_if_cancelled`."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A function with how it is run: on the event loop, or in a thread."""

    function: Callable[[Any], Any]
    is_async: bool


class Actions:
    """What a worker executes: a collection made by decorating functions.

    Besides actions it holds item providers and gate resolvers. Each function gets its task. `async
    def` runs on the worker's event loop and must not block it; a plain `def` runs in a thread of a
    bounded pool.
    """

    def __init__(self) -> None:
        self._by_kind: dict[_Kind, dict[str, Registered]] = {kind: {} for kind in _Kind}
        self._at_end: list[Callable[[], Awaitable[object]]] = []
        self._middleware: list[Middleware] = []

    def action(self, name: str) -> Callable[[_A], _A]:
        """Execute the calls of this name with the decorated function.

        Raises:
            ValueError: the name is empty, too long, or taken.
        """
        return self._decorator(_Kind.ACTION, name)

    def fallback(self, function: _A) -> _A:
        """Execute every action that no connected worker names; the task says which it is."""
        return self._add(_Kind.ACTION, FALLBACK, function)

    def items(self, provider: str) -> Callable[[_I], _I]:
        """Find the items of each `foreach` over this provider with the decorated function.

        Raises:
            ValueError: the name is empty, too long, or taken.
        """
        return self._decorator(_Kind.ITEMS, provider)

    def gate(self, gate_type: str) -> Callable[[_G], _G]:
        """Look after the gates of this type with the decorated function.

        Raises:
            ValueError: the name is empty, too long, or taken.
        """
        return self._decorator(_Kind.GATE, gate_type)

    def scripts(self, function: ScriptServer) -> None:
        """Execute scripts, all of them, with this function.

        Raises:
            ValueError: there is one already.
        """
        self._add(_Kind.SCRIPT, FALLBACK, function)

    def middleware(self, function: _M) -> _M:
        """Run the decorated coroutine function around every task, the first one outermost.

        It gets the task and a function that goes on with it and gives what it returned; it returns
        that or something else, or raises. Tasks of all kinds pass through it.
        """
        self._middleware.append(function)
        return function

    async def perform(self, task: Task, function: Proceed) -> object:
        """What a task's function returns, with all middleware around it."""
        proceed = function
        for each in reversed(self._middleware):
            proceed = partial(each, task, proceed)
        return await proceed()

    def at_end(self, close: Callable[[], Awaitable[object]]) -> None:
        """Await this when a worker ends, on its event loop: to close what the functions share."""
        self._at_end.append(close)

    def include(self, others: Actions) -> None:
        """Take over everything of another collection; its middleware counts for all tasks then.

        Raises:
            ValueError: both have something of the same kind and name.
        """
        for kind, by_name in others._by_kind.items():
            for name, registered in by_name.items():
                self._add(kind, name, registered.function)
        self._at_end += others._at_end
        self._middleware += others._middleware

    async def close(self) -> None:
        """Await everything that was given to `at_end`, the last one first, whatever one raises."""
        async with contextlib.AsyncExitStack() as stack:
            for close in self._at_end:
                stack.push_async_callback(close)

    @property
    def names(self) -> tuple[str, ...]:
        """The actions' names in the order of their registration; `*` stands for the fallback."""
        return tuple(self._by_kind[_Kind.ACTION])

    @property
    def item_providers(self) -> tuple[str, ...]:
        """The item providers' names in the order of their registration."""
        return tuple(self._by_kind[_Kind.ITEMS])

    @property
    def gate_types(self) -> tuple[str, ...]:
        """The types of gates that are looked after, in the order of their registration."""
        return tuple(self._by_kind[_Kind.GATE])

    @property
    def has_scripts(self) -> bool:
        """Whether scripts are executed."""
        return bool(self._by_kind[_Kind.SCRIPT])

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return not any(self._by_kind.values())

    def find(self, name: str) -> Registered | None:
        """The action of this name, or else the fallback, or else None."""
        by_name = self._by_kind[_Kind.ACTION]
        return by_name.get(name) or by_name.get(FALLBACK)

    def find_items(self, provider: str) -> Registered | None:
        """The item provider of this name, or None."""
        return self._by_kind[_Kind.ITEMS].get(provider)

    def find_gate(self, gate_type: str) -> Registered | None:
        """What looks after gates of this type, or None."""
        return self._by_kind[_Kind.GATE].get(gate_type)

    def find_scripts(self) -> Registered | None:
        """What executes scripts, or None."""
        return self._by_kind[_Kind.SCRIPT].get(FALLBACK)

    def _decorator(self, kind: _Kind, name: str) -> Callable[[_F], _F]:
        if not isinstance(name, str):
            raise TypeError(f"the name is missing: {kind} is registered with a name, in brackets")
        if not name or len(name.encode()) > _NAME_BYTES_MAX or name == FALLBACK:
            raise ValueError(f"{name!r} is no name for {kind}")
        return lambda function: self._add(kind, name, function)

    def _add(self, kind: _Kind, name: str, function: _F) -> _F:
        if name in self._by_kind[kind]:
            raise ValueError(f"there is {kind} {name!r} already")
        # An object may have an async `__call__`.
        candidates = (function, getattr(function, "__call__", None))  # noqa: B004 - see above
        is_async = any(
            inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
            for each in candidates
        )
        self._by_kind[kind][name] = Registered(function, is_async)
        return function


class _Kind(StrEnum):
    """What a function is registered for; the words of error texts."""

    ACTION = "an action"
    ITEMS = "an item provider"
    GATE = "a gate type"
    SCRIPT = "a function for scripts"
