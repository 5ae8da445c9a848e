"""The table of errors: complete, unique, and what each of them carries on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from runkon_server import errors
from runkon_server.api import status

if TYPE_CHECKING:
    from collections.abc import Iterator

VIOLATIONS = [errors.Violation("a", "is wrong"), errors.Violation("b", "is wrong too")]
SAMPLES: list[errors.RunkonError] = [
    *(
        kind(VIOLATIONS)
        for kind in (
            errors.InvalidArgumentError,
            errors.InputsInvalidError,
            errors.DslSyntaxError,
            errors.DslLimitError,
            errors.DslSemanticError,
            errors.DslUnsupportedError,
        )
    ),
    errors.PageTokenInvalidError(),
    errors.RunPurgedError(
        "01R", status="failed", last_seq=7, purged_at=datetime(2026, 3, 1, 12, tzinfo=UTC)
    ),
    errors.RunIsChildError("01C", parent="01R"),
    errors.FilterInvalidError(7, "unknown field `x`", name="x"),
    errors.GateSelectionInvalidError(["x"], ["yes", "no"]),
    errors.WorkflowDeletedError("w", deleted_by="zoe", deleted_at="2026-01-01T00:00:00Z"),
    errors.AdminRequiredError("zoe"),
    *(
        kind("x")
        for kind in (
            errors.NotFoundError,
            errors.WorkflowNotFoundError,
            errors.RunNotFoundError,
            errors.StepNotFoundError,
            errors.GateNotFoundError,
            errors.TaskNotFoundError,
        )
    ),
    errors.RequestIdReusedError("r"),
    errors.RunKeyInUseError("k", run_id="run"),
    errors.ReportConflictError("t"),
    errors.PreconditionError("no", subject="s", state="t"),
    errors.RunStateError("run", status="completed", wish="cancelled"),
    errors.StartRefusedError("r-1", refusal="INPUTS_INVALID", why="no"),
    errors.ResumeRefusedError("run", status="failed", mode="normal", why="no step failed"),
    errors.GateTypeMismatchError("g", gate_type="human_review"),
    errors.GateAlreadyResolvedError("g", decision="approved", resolved_by="zoe"),
    errors.GateTimedOutError("g"),
    errors.GateClosedError("g"),
    errors.TaskAttemptStaleError("t", state="done"),
    errors.GateStarterExcludedError("g", principal="zoe"),
    errors.CursorAheadError("run", after_seq=9, head_seq=3),
    errors.CursorExpiredError("run", oldest_seq=4),
    errors.ResourceExhaustedError("streams", limit="200"),
    errors.SlowConsumerError(run_id="run", after_seq="7"),
    errors.CursorInvalidError(),
    errors.FilterInvalidError(4, "no such field", field="x"),
    errors.FeedExpiredError("default"),
    errors.CursorForeignError("default"),
    errors.StreamLimitError("zoe", limit=200),
    errors.CredentialsRevokedError("zoe"),
    errors.UnavailableError(),
    errors.DatabaseUnavailableError(),
    errors.DatabaseReadOnlyError(),
    errors.DatabaseFullError(),
    errors.DrainingError(),
    errors.OutcomeUnknownError(),
    errors.ConflictError(),
    errors.LeaseLostError("run", generation=2),
]
IDS = [type(sample).__name__ for sample in SAMPLES]


def every_class(base: type[errors.RunkonError] = errors.RunkonError) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from every_class(kind)


def details(error: errors.RunkonError) -> dict[str, Any]:
    """The details of the error's status, by the short names of their messages."""
    found = {}
    for packed in status.to_status(error, request_id="req-1").details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        found[kind.__name__] = kind()
        packed.Unpack(found[kind.__name__])
    return found


def test_every_domain_error_has_a_code_and_a_reason_of_its_own() -> None:
    """The table, the classes of `errors` and the samples of this test are the same set."""
    ours = [kind for kind in every_class() if kind.__module__ == errors.__name__]

    assert set(status.CODES) == set(ours) == {type(sample) for sample in SAMPLES}
    assert len({kind.reason for kind in ours}) == len(ours)


@pytest.mark.parametrize("error", SAMPLES, ids=IDS)
def test_every_error_tells_its_reason_and_names_the_call(error: errors.RunkonError) -> None:
    found = details(error)

    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == (error.reason, "runkon.dev")
    assert dict(found["ErrorInfo"].metadata) == error.metadata
    assert found["RequestInfo"].request_id == "req-1"


@pytest.mark.parametrize("error", SAMPLES, ids=IDS)
def test_every_error_carries_what_its_code_promises(error: errors.RunkonError) -> None:
    """The table of the error model: which detail goes with which code."""
    code = status.CODES[type(error)]
    promised = {
        StatusCode.INVALID_ARGUMENT: {"BadRequest"},
        StatusCode.NOT_FOUND: {"ResourceInfo"},
        StatusCode.ALREADY_EXISTS: {"ResourceInfo"},
        StatusCode.FAILED_PRECONDITION: {"PreconditionFailure"},
        StatusCode.UNAUTHENTICATED: set[str](),
        StatusCode.PERMISSION_DENIED: set[str](),
        StatusCode.OUT_OF_RANGE: set[str](),
        StatusCode.RESOURCE_EXHAUSTED: {"QuotaFailure", "RetryInfo"},
        StatusCode.UNAVAILABLE: {"RetryInfo"},
        StatusCode.ABORTED: {"RetryInfo"},
    }

    assert set(details(error)) == promised[code] | {"ErrorInfo", "RequestInfo"}


def test_precondition_and_resource_say_which_and_what() -> None:
    state = details(errors.RunStateError("run-1", status="failed", wish="cancelled"))
    missing = details(errors.RunNotFoundError("run-2"))
    key = details(errors.RunKeyInUseError("k", run_id="run-3"))

    (violation,) = state["PreconditionFailure"].violations
    assert (violation.type, violation.subject, violation.description) == (
        "STATE",
        "run-1",
        "failed",
    )
    assert (missing["ResourceInfo"].resource_type, missing["ResourceInfo"].resource_name) == (
        "run",
        "run-2",
    )
    assert key["ResourceInfo"].resource_name == "run-3"


def test_a_retry_is_advised_after_a_positive_time() -> None:
    for error in (errors.DrainingError(), errors.ConflictError()):
        assert details(error)["RetryInfo"].retry_delay.ToMilliseconds() > 0


def test_violations_are_cut_to_what_clients_take_and_counted() -> None:
    """A hundred long problems: the first are whole, the others a number; all in 6 KiB."""
    many = [errors.Violation(f"source:{n}:1", "é" * 60) for n in range(100)]
    answer = status.to_status(errors.DslSyntaxError(many), request_id="r")
    found = details(errors.DslSyntaxError(many))
    shown = found["BadRequest"].field_violations

    assert len(answer.SerializeToString()) < 6 * 1024
    assert [violation.field for violation in shown][:2] == ["source:0:1", "source:1:1"]
    assert 1 <= len(shown) < 100
    assert found["ErrorInfo"].metadata["violations_left_out"] == str(100 - len(shown))


def test_endless_texts_are_cut_even_where_there_is_one() -> None:
    """An id of a megabyte, echoed in message, metadata and resource."""
    answer = status.to_status(errors.RunNotFoundError("x" * 1_000_000))
    one = status.to_status(errors.InputsInvalidError([errors.Violation("é" * 9000, "z" * 9000)]))

    assert len(answer.SerializeToString()) < 4 * 1024
    assert len(one.SerializeToString()) < 4 * 1024


def test_a_lone_surrogate_does_not_break_the_answer() -> None:
    assert status.to_status(errors.RunNotFoundError("\ud800")).message.startswith("no run")


def test_an_internal_error_says_nothing_but_its_reference() -> None:
    answer = status.internal("ref-1")

    assert (answer.code, answer.message) == (13, "internal error; ref=ref-1")
    assert not answer.details


def test_an_error_inside_an_answer_is_the_same_error() -> None:
    found = status.error_status(errors.RunKeyInUseError("k", run_id="run"))
    whole = status_pb2.Status(code=found.code, message=found.message)
    alone = status.to_status(errors.RunKeyInUseError("k", run_id="run"))

    assert (found.reason, dict(found.metadata)) == ("RUN_KEY_IN_USE", {"key": "k", "run_id": "run"})
    assert (whole.code, whole.message) == (alone.code, alone.message)
