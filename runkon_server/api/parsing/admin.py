"""Requests of AdminService."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from runkon_server.api.parsing.checks import NAME_BYTES, Check
from runkon_server.store.action_limits import LIMIT_MAX

if TYPE_CHECKING:
    from runkon.v1 import admin_pb2

    ListRequest: TypeAlias = admin_pb2.ListActionLimitsRequest | admin_pb2.ListReplicasRequest
    OfRetention: TypeAlias = admin_pb2.GetRetentionRequest | admin_pb2.SetRetentionRequest

KEPT_MAX: Final = timedelta(weeks=99_999)


def check_set_action_limit(request: admin_pb2.SetActionLimitRequest) -> None:
    """Refuse a SetActionLimitRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.label("action", request.action, NAME_BYTES, required=True)
    has_concurrency = request.HasField("concurrency")
    has_rate = request.HasField("rate_per_second")
    if has_concurrency:
        check.between("concurrency", request.concurrency, 0, LIMIT_MAX)
    if has_rate and not 0 < request.rate_per_second <= LIMIT_MAX:
        check.wrong("rate_per_second", f"must be above 0, and at most {LIMIT_MAX:,}")
    if not has_concurrency and not has_rate:
        check.wrong("concurrency", "is required, or rate_per_second is, or both")
    check.done()


def check_clear_action_limit(request: admin_pb2.ClearActionLimitRequest) -> None:
    """Refuse a ClearActionLimitRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.label("action", request.action, NAME_BYTES, required=True)
    check.done()


def check_list(request: ListRequest) -> None:
    """Refuse a request for a list that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.page(request.page_size, request.page_token)
    check.done()


def check_get_retention(request: admin_pb2.GetRetentionRequest) -> None:
    """Refuse a GetRetentionRequest that breaks a limit."""
    check = Check()
    _check_subject(check, request)
    check.done()


def check_set_retention(request: admin_pb2.SetRetentionRequest) -> None:
    """Refuse a SetRetentionRequest that breaks a limit."""
    check = Check()
    _check_subject(check, request)
    check.request_id(request.request_id)
    match request.WhichOneof("policy"):
        case "keep_for":
            check.duration("keep_for", request.keep_for, high=KEPT_MAX)
        case "keep_forever" | "inherit" as field:
            if not getattr(request, field):
                check.wrong(field, "must be true where it is given")
        case _:
            check.wrong("policy", "is required: keep_for, keep_forever or inherit")
    check.done()


def check_purge_runs(request: admin_pb2.PurgeRunsRequest) -> None:
    """Refuse a PurgeRunsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    if request.HasField("older_than"):
        check.duration("older_than", request.older_than, high=KEPT_MAX)
    check.done()


def _check_subject(check: Check, request: OfRetention) -> None:
    check.namespace(request.namespace)
    if request.for_all and request.namespace:
        check.wrong("namespace", "must be empty where the default of all is meant")
