"""A gRPC server on loopback that answers what a test tells it to, and remembers what it was asked.

For tests of callers; whether the real server answers like this is for its own tests to say.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from runkon.v1 import (
    admin_pb2_grpc,
    gates_pb2_grpc,
    runs_pb2_grpc,
    workers_pb2_grpc,
    workflows_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    Answer = (
        Message | Exception | list[Message] | Callable[[Any], Message | Exception | list[Message]]
    )


class Refusal(Exception):
    """An answer that is an error, with the details that the contract promises."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        violations: tuple[tuple[str, str], ...] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.code = code
        info = error_details_pb2.ErrorInfo(reason=reason, domain="runkon.dev", metadata=metadata)
        self.details: list[Message] = [info]
        if violations:
            self.details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                        for field, text in violations
                    ]
                )
            )

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        """End the call with it."""
        packed = []
        for detail in self.details:
            packed.append(AnyMessage())
            packed[-1].Pack(detail)
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=str(self), details=packed)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError


class FakeServer:
    """Answers by method name; a list is a stream, a function is given the request."""

    def __init__(self) -> None:
        self.address = ""
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, Any]] = []
        self.principals: list[str] = []

    def asked(self, method: str) -> Any:
        """The one request of that method."""
        (found,) = (request for name, request in self.requests if name == method)
        return found

    def answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Answer:
        """Look an answer up."""
        self.requests.append((method, request))
        self.principals += [
            str(value) for key, value in context.invocation_metadata() if key == "runkon-principal"
        ]
        found = self.answers.get(method)
        if found is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the test gave no answer to {method}")
        if callable(found):
            found = found(request)
        if isinstance(found, Refusal):
            found.abort(context)
        return found


def _servicer(base: type, fake: FakeServer) -> Any:
    def unary(method: str) -> Callable[..., Answer]:
        return lambda _self, request, context: fake.answer(method, request, context)

    def stream(method: str) -> Callable[..., Iterator[Answer]]:
        def frames(_self: object, request: Message, context: grpc.ServicerContext) -> Any:
            answer = fake.answer(method, request, context)
            assert isinstance(answer, list)
            yield from answer

        return frames

    methods = [name for name in vars(base) if not name.startswith("_")]
    overrides = {
        name: stream(name) if name.startswith("Stream") else unary(name) for name in methods
    }
    return type(f"Fake{base.__name__}", (base,), overrides)()


@contextlib.contextmanager
def serving() -> Iterator[FakeServer]:
    """A fake on a port of its own."""
    fake = FakeServer()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    runs_pb2_grpc.add_RunServiceServicer_to_server(
        _servicer(runs_pb2_grpc.RunServiceServicer, fake), server
    )
    gates_pb2_grpc.add_GateServiceServicer_to_server(
        _servicer(gates_pb2_grpc.GateServiceServicer, fake), server
    )
    workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(
        _servicer(workflows_pb2_grpc.WorkflowServiceServicer, fake), server
    )
    workers_pb2_grpc.add_WorkerServiceServicer_to_server(
        _servicer(workers_pb2_grpc.WorkerServiceServicer, fake), server
    )
    admin_pb2_grpc.add_AdminServiceServicer_to_server(
        _servicer(admin_pb2_grpc.AdminServiceServicer, fake), server
    )
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()
