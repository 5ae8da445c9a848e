"""The reference of errors says what the code says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runkon_server.api.status import CODES
from tools import error_reference

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
