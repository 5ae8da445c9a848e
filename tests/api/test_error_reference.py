"""The reference of errors says what the code says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from grpc import StatusCode

from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2
from runkon_server.api.status import CODES
from tools import error_reference

EVERYWHERE = {StatusCode.UNAVAILABLE, StatusCode.ABORTED}
"""Codes whose reasons no method names: any call may meet them, or none."""

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_reference_is_current() -> None:
    assert error_reference.TARGET.read_text(encoding="utf-8") == error_reference.render()


def test_every_reason_is_explained() -> None:
    text = error_reference.render()

    for kind in CODES:
        assert f"| `{kind.reason}` | {(kind.__doc__ or '')[:20]}" in text
    assert "| `GATE_ALREADY_RESOLVED` |" in text
    assert "| `resolved_by`, `state`, `subject` |" in text
    assert "| `deleted_by`, `deleted_time`, `name`, `type` |" in text


def test_every_reason_is_named_by_a_method_that_fails_with_it() -> None:
    """In the comments of the contract; but for those that hold for all methods, or for none."""
    named = {each for reasons in error_reference.reasons_by_method().values() for each in reasons}
    everywhere = {kind.reason for kind, code in CODES.items() if code in EVERYWHERE}
    bases = {code.name for code in StatusCode}

    assert {kind.reason for kind in CODES} - everywhere - bases == named - everywhere


def test_every_method_is_known_with_its_reasons() -> None:
    services = (runs_pb2, gates_pb2, workflows_pb2, workers_pb2, admin_pb2)
    methods = {
        method.name
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    found = error_reference.reasons_by_method()

    assert set(found) == methods
    assert found["ResumeRun"] == [
        "RUN_NOT_FOUND",
        "RUN_PURGED",
        "STEP_NOT_FOUND",
        "RUN_STATE",
        "RESUME_REFUSED",
        "RUN_KEY_IN_USE",
        "REQUEST_ID_REUSED",
    ]
    assert "GATE_TYPE_MISMATCH" in found["ReportPullRequest"]
    assert found["Work"] == []


def test_a_stale_reference_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, then written, then changed by hand."""
    target = tmp_path / "errors.md"
    monkeypatch.setattr(error_reference, "TARGET", target)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["error_reference", *arguments])
        return error_reference.main()

    assert (run("--check"), run(), run("--check")) == (1, 0, 0)
    target.write_text(target.read_text() + "more")
    assert run("--check") == 1
    assert "is stale" in capsys.readouterr().err
