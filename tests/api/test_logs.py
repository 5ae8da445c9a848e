"""Logs: one JSON object per line, bound names in it, secrets not."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from runkon_server.api.logs import LogFormat, configure_logging, redact
from support.logs import log_past_the_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

DSN = "postgresql://runkon:geheim@db.example/runkon"


@pytest.fixture
def restored() -> Iterator[None]:
    """Leaves logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    log_past_the_tests()
    structlog.contextvars.clear_contextvars()


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


@pytest.mark.usefixtures("restored")
def test_a_record_is_one_line_with_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """Run and request are in it without having been said again; line breaks do not end it."""
    configure_logging(LogFormat.JSON)
    with structlog.contextvars.bound_contextvars(request_id="q1", run_id="r1"):
        structlog.get_logger("runkon_server.test").info("run.advanced", text="a\nb")

    (record,) = lines(capsys)

    assert (record["event"], record["level"], record["text"]) == ("run.advanced", "info", "a\nb")
    assert (record["request_id"], record["run_id"]) == ("q1", "r1")
    assert record["timestamp"].endswith("Z")


@pytest.mark.usefixtures("restored")
def test_a_traceback_is_in_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    """As text, without the secrets that errors like to quote."""
    configure_logging(LogFormat.JSON)
    try:
        raise ValueError(f"cannot connect to {DSN}")
    except ValueError:
        structlog.get_logger("runkon_server.test").exception("call.failed")

    (record,) = lines(capsys)

    assert "ValueError" in record["exception"]
    assert "geheim" not in json.dumps(record)


@pytest.mark.usefixtures("restored")
def test_libraries_speak_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings only, and redacted as well."""
    configure_logging(LogFormat.JSON)
    library = logging.getLogger("some.library")
    library.info("nobody wants to know")
    library.warning("lost %s", DSN)

    (record,) = lines(capsys)

    assert record["logger"] == "some.library"
    assert record["event"] == "lost postgresql://runkon:***@db.example/runkon"


@pytest.mark.usefixtures("restored")
def test_people_get_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The console format, at the level asked for."""
    configure_logging(LogFormat.CONSOLE, "warning")
    log = structlog.get_logger("runkon_server.test")
    log.info("run.advanced")
    log.warning("lease.lost", run_id="r1")

    said = capsys.readouterr().err

    assert "lease.lost" in said
    assert "run_id=r1" in said
    assert "run.advanced" not in said


@pytest.mark.parametrize(
    "record",
    [
        {"token": "geheim"},
        {"task_token": "geheim"},
        {"owner-token": "geheim"},
        {"PASSWORD": "geheim"},
        {"dsn": "geheim"},
        {"database_url": "geheim"},
        {"authorization": "geheim"},
        {"nested": {"deep": [{"api_key": "geheim"}]}},
        {"event": f"connect to {DSN} failed"},
        {"error": ValueError(DSN)},
        {"text": "no answer from postgresql://runkon:un@geheim@db.example/runkon"},
        {"text": "host=db password=geheim user=x"},
        {"text": "password='geheim und mehr'"},
    ],
    ids=str,
)
def test_secrets_are_struck_out(record: dict[str, Any]) -> None:
    """By the name of their key, inside URLs, and inside connection strings."""
    shown = json.dumps(redact(None, "", record), default=repr)

    assert "geheim" not in shown
    assert "***" in shown


def test_what_is_no_secret_stays() -> None:
    """Numbers of tokens, URLs without a password, other values."""
    record = {"input_tokens": 12, "url": "https://example.org/a@b", "at": 1.5, "none": None}

    assert redact(None, "", dict(record)) == record
