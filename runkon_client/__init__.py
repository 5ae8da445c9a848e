"""Client of the Runkon workflow service: callers, watchers and workers.

`Client` and `SyncClient` start runs, follow them and answer gates; `Worker` executes actions.
Values are frozen dataclasses, failures are `RunkonClientError`s; gRPC and protobuf stay inside.
"""

from runkon_client.calls.runs import EventPage, RunOptions, RunSpec
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
from runkon_client.handles import GateHandle, ListedGate, RunHandle, StartedRun
from runkon_client.retry import RetryPolicy
from runkon_client.streams import EventStream, SyncEventStream
from runkon_client.sync import SyncClient
from runkon_client.sync_handles import (
    SyncGateHandle,
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
    "InvalidArgumentError",
    "ListedGate",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "PreconditionError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "RetryableError",
    "RunHandle",
    "RunOptions",
    "RunSpec",
    "RunkonClientError",
    "ServerFaultError",
    "StartedRun",
    "SyncClient",
    "SyncEventStream",
    "SyncGateHandle",
    "SyncListedGate",
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
