"""Calls of AdminService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon.v1 import admin_pb2
from runkon_client.calls.call import Call, Page, encode_span, mint_request_id, reader
from runkon_client.decode_admin import decode_limit, decode_replica, decode_retention

if TYPE_CHECKING:
    from datetime import timedelta

    from google.protobuf.duration_pb2 import Duration

    from runkon_client import values

_SERVICE = "/runkon.v1.AdminService/"


def set_limit(
    namespace: str,
    action: str,
    *,
    concurrency: int | None,
    rate_per_s: float | None,
    request_id: str,
) -> Call[values.ActionLimit | None]:
    """SetActionLimit; None if the limit is gone again."""
    return Call(
        _SERVICE + "SetActionLimit",
        admin_pb2.SetActionLimitRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            action=action,
            concurrency=concurrency,
            rate_per_second=rate_per_s,
        ),
        reader(
            admin_pb2.SetActionLimitResponse,
            lambda answer: decode_limit(answer.limit) if answer.HasField("limit") else None,
        ),
    )


def list_limits(namespace: str, *, page_size: int, token: str) -> Call[Page[values.ActionLimit]]:
    """ListActionLimits."""
    return Call(
        _SERVICE + "ListActionLimits",
        admin_pb2.ListActionLimitsRequest(
            namespace=namespace, page_size=page_size, page_token=token
        ),
        reader(
            admin_pb2.ListActionLimitsResponse,
            lambda answer: Page(tuple(map(decode_limit, answer.limits)), answer.next_page_token),
        ),
    )


def clear_limit(namespace: str, action: str, *, request_id: str) -> Call[bool]:
    """ClearActionLimit."""
    return Call(
        _SERVICE + "ClearActionLimit",
        admin_pb2.ClearActionLimitRequest(
            namespace=namespace, request_id=request_id or mint_request_id(), action=action
        ),
        reader(admin_pb2.ClearActionLimitResponse, lambda answer: answer.cleared),
    )


def list_replicas(namespace: str, *, page_size: int, token: str) -> Call[Page[values.Replica]]:
    """ListReplicas."""
    return Call(
        _SERVICE + "ListReplicas",
        admin_pb2.ListReplicasRequest(namespace=namespace, page_size=page_size, page_token=token),
        reader(
            admin_pb2.ListReplicasResponse,
            lambda answer: Page(
                tuple(map(decode_replica, answer.replicas)), answer.next_page_token
            ),
        ),
    )


def get_retention(namespace: str, *, for_all: bool) -> Call[values.Retention]:
    """GetRetention."""
    return Call(
        _SERVICE + "GetRetention",
        admin_pb2.GetRetentionRequest(namespace="" if for_all else namespace, for_all=for_all),
        reader(admin_pb2.GetRetentionResponse, lambda answer: decode_retention(answer.retention)),
    )


def set_retention(
    namespace: str,
    *,
    keep_for: timedelta | None = None,
    inherit: bool = False,
    for_all: bool,
    request_id: str,
) -> Call[values.Retention]:
    """SetRetention; without a time and unless it inherits, for ever."""
    request = admin_pb2.SetRetentionRequest(
        namespace="" if for_all else namespace,
        request_id=request_id or mint_request_id(),
        for_all=for_all,
    )
    if inherit:
        request.inherit = True
    elif keep_for is None:
        request.keep_forever = True
    else:
        request.keep_for.CopyFrom(encode_span(keep_for))
    return Call(
        _SERVICE + "SetRetention",
        request,
        reader(admin_pb2.SetRetentionResponse, lambda answer: decode_retention(answer.retention)),
    )


def count_due(namespace: str, *, older_than: timedelta | None) -> Call[int]:
    """PurgeRuns that only counts."""
    return Call(
        _SERVICE + "PurgeRuns",
        admin_pb2.PurgeRunsRequest(namespace=namespace, older_than=_span(older_than), dry_run=True),
        reader(admin_pb2.PurgeRunsResponse, lambda answer: answer.due),
    )


def purge(namespace: str, *, older_than: timedelta | None) -> Call[int]:
    """PurgeRuns: one batch."""
    return Call(
        _SERVICE + "PurgeRuns",
        admin_pb2.PurgeRunsRequest(
            namespace=namespace, request_id=mint_request_id(), older_than=_span(older_than)
        ),
        reader(admin_pb2.PurgeRunsResponse, lambda answer: answer.removed),
    )


def _span(length: timedelta | None) -> Duration | None:
    return None if length is None else encode_span(length)
