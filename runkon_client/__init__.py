"""Client of the Runkon workflow service: callers, watchers and workers.

`Client` and `SyncClient` start runs, follow them and answer gates; `Worker` executes actions.
Values are frozen dataclasses, failures are `RunkonClientError`s; gRPC and protobuf stay inside.

Each name is imported when it is first asked for, so that a program pays for what it uses: gRPC
alone takes longer to import than everything here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runkon_client.calls.runs import EventPage, RunCount, RunOptions, RunSpec
    from runkon_client.client import Client
    from runkon_client.errors import (
        AbortedError,
        AlreadyExistsError,
        CallCancelledError,
        Code,
        DeadlineExceededError,
        EventGapError,
        InvalidArgumentError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        PreconditionError,
        ResourceExhaustedError,
        RunkonClientError,
        ServerFaultError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
        Violation,
        WaitTimeoutError,
    )
    from runkon_client.handles import (
        GateHandle,
        GateStream,
        ListedGate,
        RunHandle,
        StartedRun,
    )
    from runkon_client.retry import RetryPolicy
    from runkon_client.streams import (
        EventStream,
        NamespaceStream,
        SyncEventStream,
        SyncNamespaceStream,
    )
    from runkon_client.sync import SyncClient
    from runkon_client.sync_handles import (
        SyncGateHandle,
        SyncGateStream,
        SyncListedGate,
        SyncRunHandle,
        SyncStartedRun,
    )
    from runkon_client.worker import (
        ActionOutput,
        Actions,
        FinalError,
        RetryableError,
        Task,
        Worker,
    )

__all__ = [
    "AbortedError",
    "ActionOutput",
    "Actions",
    "AlreadyExistsError",
    "CallCancelledError",
    "Client",
    "Code",
    "DeadlineExceededError",
    "EventGapError",
    "EventPage",
    "EventStream",
    "FinalError",
    "GateHandle",
    "GateStream",
    "InvalidArgumentError",
    "ListedGate",
    "NamespaceStream",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "PreconditionError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "RetryableError",
    "RunCount",
    "RunHandle",
    "RunOptions",
    "RunSpec",
    "RunkonClientError",
    "ServerFaultError",
    "StartedRun",
    "SyncClient",
    "SyncEventStream",
    "SyncGateHandle",
    "SyncGateStream",
    "SyncListedGate",
    "SyncNamespaceStream",
    "SyncRunHandle",
    "SyncStartedRun",
    "Task",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
    "WaitTimeoutError",
    "Worker",
]

_NAMES: Final = {
    "calls.runs": ("EventPage", "RunCount", "RunOptions", "RunSpec"),
    "client": ("Client",),
    "errors": (
        "AbortedError",
        "AlreadyExistsError",
        "CallCancelledError",
        "Code",
        "DeadlineExceededError",
        "EventGapError",
        "InvalidArgumentError",
        "NotFoundError",
        "OutOfRangeError",
        "PermissionDeniedError",
        "PreconditionError",
        "ResourceExhaustedError",
        "RunkonClientError",
        "ServerFaultError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
        "Violation",
        "WaitTimeoutError",
    ),
    "handles": ("GateHandle", "GateStream", "ListedGate", "RunHandle", "StartedRun"),
    "retry": ("RetryPolicy",),
    "streams": (
        "EventStream",
        "NamespaceStream",
        "SyncEventStream",
        "SyncNamespaceStream",
    ),
    "sync": ("SyncClient",),
    "sync_handles": (
        "SyncGateHandle",
        "SyncGateStream",
        "SyncListedGate",
        "SyncRunHandle",
        "SyncStartedRun",
    ),
    "worker": ("ActionOutput", "Actions", "FinalError", "RetryableError", "Task", "Worker"),
}
"""Module → what it exports here: the imports above, for the interpreter."""
_HOMES: Final = {name: module for module, names in _NAMES.items() for name in names}
_MODULES: Final = frozenset({"errors", "values", "worker"})
"""Modules that are public themselves: `runkon_client.errors` needs no import of its own."""


if not TYPE_CHECKING:  # or a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value  # the next one finds it without asking here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
