"""The whole judgement on a text."""

from __future__ import annotations

import pytest

from runkon_server.dsl.check import World
from runkon_server.dsl.codes import Group
from runkon_server.dsl.validate import Report, validate
from support.workflows import wrap


def judged(text: str, *, is_strict: bool = False) -> Report:
    return validate(wrap(text), "w.wf", World(actions=("build",)), is_strict=is_strict)


def test_a_good_text_gives_its_definition() -> None:
    report = judged("call build")

    assert report.definition is not None
    assert (report.diagnostics, report.reason, report.render()) == ((), None, "")


def test_warnings_from_every_stage_come_with_the_definition() -> None:
    """From the parser and the checker, in the order of the text."""
    report = judged("inputs { dry_run } call build { retires = 1 }")

    assert report.definition is not None
    assert [each.code for each in report.diagnostics] == ["WF552", "WF301"]
    assert report.reason is None


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("cal build", "WF204", Group.SYNTAX),
        ("call build { retries = 21 }", "WF407", Group.LIMIT),
        ("call test", "WF525", Group.SEMANTIC),
    ],
)
def test_an_error_from_any_stage_refuses_the_text(text: str, code: str, reason: Group) -> None:
    report = judged(text)

    assert report.definition is None
    assert [each.code for each in report.diagnostics] == [code]
    assert report.reason is reason
    assert f"error {code}" in report.render()


def test_a_warning_does_not_give_the_reason() -> None:
    assert judged("call build { retires = 1 } cal build").reason is Group.SYNTAX


def test_strict_refuses_warnings() -> None:
    report = judged("call build { retires = 1 }", is_strict=True)

    assert report.definition is None
    assert report.reason is Group.SEMANTIC


def test_the_edition_reaches_the_strings() -> None:
    text = wrap(r'meta { title = "\u00e9" }')
    report = validate(text, "w.wf", edition=2)

    assert report.definition is not None
    assert report.definition.title == "é"
