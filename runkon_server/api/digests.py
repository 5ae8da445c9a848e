"""What a request id stands for."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Final, TypeAlias

from runkon.v1 import runs_pb2
from runkon_server.runtime.commands import ConflictPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon.v1 import admin_pb2, gates_pb2, workflows_pb2

    Mutation: TypeAlias = (
        admin_pb2.ClearActionLimitRequest
        | admin_pb2.PurgeRunsRequest
        | admin_pb2.SetActionLimitRequest
        | admin_pb2.SetRetentionRequest
        | gates_pb2.ReportPullRequestRequest
        | gates_pb2.ResolveGateRequest
        | runs_pb2.CancelRunRequest
        | runs_pb2.DeleteRunRequest
        | runs_pb2.DismissRunRequest
        | runs_pb2.ResumeRunRequest
        | runs_pb2.StartRunRequest
        | workflows_pb2.DeleteWorkflowRequest
        | workflows_pb2.PutWorkflowRequest
    )

__all__ = ["POLICIES", "digest_of", "sql_digest_of"]

POLICIES: Final = {
    runs_pb2.CONFLICT_POLICY_UNSPECIFIED: ConflictPolicy.FAIL,
    runs_pb2.CONFLICT_POLICY_FAIL: ConflictPolicy.FAIL,
    runs_pb2.CONFLICT_POLICY_USE_EXISTING: ConflictPolicy.USE_EXISTING,
    runs_pb2.CONFLICT_POLICY_CANCEL_EXISTING: ConflictPolicy.CANCEL_EXISTING,
}


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


def sql_digest_of(request: runs_pb2.StartRunRequest) -> str:
    """The digest that `runkon.start_run()` gives to the same request; empty: it cannot make it.

    That function hashes the text which PostgreSQL writes for a `jsonb`: keys by their length in
    bytes and then bytewise, a space after each colon and comma. The caller counts in neither
    direction, being known by different names here and there.
    """
    if request.WhichOneof("definition") != "workflow" or request.validate_only:
        return ""
    delay = request.start_delay
    config = request.config
    said = {
        "workflow": request.workflow,
        "inputs": _ordered(request.inputs),
        "key": request.key,
        "conflict_policy": POLICIES[request.conflict_policy].value,
        "labels": _ordered(request.labels),
        "priority": request.priority,
        "dry_run": request.dry_run,
        "trigger": request.trigger,
        "parent_run_id": request.parent_run_id,
        "start_delay_us": delay.seconds * 1_000_000 + delay.nanos // 1000,
        "fail_fast": config.fail_fast if config.HasField("fail_fast") else True,
    }
    text = json.dumps(_ordered(said), ensure_ascii=False)
    return "sql:" + hashlib.sha256(text.encode()).hexdigest()


def _ordered(values: Mapping[str, object]) -> dict[str, object]:
    def place(key: str) -> tuple[int, bytes]:
        written = key.encode()
        return len(written), written

    return {key: values[key] for key in sorted(values, key=place)}
