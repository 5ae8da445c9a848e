"""What a request id stands for."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from runkon.v1 import gates_pb2, runs_pb2, workflows_pb2

    Mutation: TypeAlias = (
        gates_pb2.ReportPullRequestRequest
        | gates_pb2.ResolveGateRequest
        | runs_pb2.CancelRunRequest
        | runs_pb2.DeleteRunRequest
        | runs_pb2.DismissRunRequest
        | runs_pb2.ResumeRunRequest
        | runs_pb2.StartRunRequest
        | workflows_pb2.PutWorkflowRequest
    )

__all__ = ["digest_of"]


def digest_of(request: Mutation, *, namespace: str, principal: str) -> str:
    """SHA-256 over everything that the request says, but its id; equal for a repeat only.

    Args:
        namespace: the one that is meant, which the request may leave out.
    """
    said = copy.deepcopy(request)
    said.namespace = namespace
    said.ClearField("request_id")
    hashed = hashlib.sha256()
    for part in (
        request.DESCRIPTOR.full_name.encode(),
        principal.encode(),
        said.SerializeToString(deterministic=True),
    ):
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return hashed.hexdigest()
