"""Quality gates."""

from __future__ import annotations

import json

import pytest

from support.plays import Play

GATE = 'call a gate quality_gate { name = "good" source = a threshold = 70 } call b'
LENIENT = 'call a gate quality_gate { name = "good" source = a threshold = 70 on_fail = continue }'


def decided(text: str, output: object) -> Play:
    """A run whose first step said this."""
    play = Play(text)
    play.complete("a", structured_output=None if output is None else json.dumps(output))
    return play


def test_098_confidence_decides_at_once() -> None:
    """80 passes a threshold of 70, and so does 70; 60 fails the run, or goes on when told to."""
    assert decided(GATE, {"confidence": 80}).open_steps == ["b"]
    assert decided(GATE, {"confidence": 70}).open_steps == ["b"]
    failed, lenient = decided(GATE, {"confidence": 60}), decided(LENIENT, {"confidence": 60})

    assert failed.status == "failed"
    assert failed.error == "quality gate `good`: confidence 60, threshold 70: not passed"
    assert failed.row("good")["error_code"] == "QUALITY_GATE_FAILED"
    assert lenient.status == "completed"
    assert lenient.row("good")["result_text"] == "confidence 60, threshold 70: not passed, went on"


def test_098_failure_ends_the_body_without_fail_fast_too() -> None:
    """And names no culprit: repeating the gate alone would give the same verdict."""
    play = Play(GATE, fail_fast=False)
    play.complete("a", structured_output='{"confidence": 1}')

    assert play.rows("b") == []
    assert play.status == "failed"
    assert "fatal" not in play.row("good")


@pytest.mark.parametrize(
    ("output", "confidence", "doubt"),
    [
        (None, 0, "no structured output"),
        ([80], 0, "no structured output"),
        ({}, 0, "no `confidence` in the output"),
        ({"confidence": "80"}, 0, "`confidence` is no number"),
        ({"confidence": True}, 0, "`confidence` is no number"),
        ({"confidence": None}, 0, "`confidence` is no number"),
        ({"confidence": float("nan")}, 0, "`confidence` is no number"),
        ({"confidence": -1}, 0, "the output says -1"),
        ({"confidence": 150}, 100, "the output says 150"),
        ({"confidence": 10**400}, 100, f"the output says {10**400}"),
        ({"confidence": -(10**400)}, 0, f"the output says -{10**400}"),
        ({"confidence": 69.9}, 69, None),
        ({"confidence": 70.0}, 70, None),
    ],
)
def test_099_confidence_is_read_with_care(
    output: object, confidence: int, doubt: str | None
) -> None:
    """What is no number counts as 0, fractions are dropped, 100 is the most; the row says why."""
    text = str(decided(LENIENT, output).row("good")["result_text"])

    assert text.startswith(f"confidence {confidence}, threshold 70: ")
    assert text.endswith(f" ({doubt})") if doubt else "(" not in text


def test_100_source_without_a_result_fails_the_gate() -> None:
    """Also where a low confidence would be let through."""
    play = Play(f"if flag {{ {LENIENT} }}", {"flag": "true"})
    skipped = Play(
        "inputs { flag boolean } if flag { call a } "
        "gate quality_gate { source = a threshold = 0 on_fail = continue }"
    )
    play.complete("a")

    assert play.status == "completed"
    assert skipped.status == "failed"
    assert skipped.error == "quality gate `quality_gate`: `a` has no result"


def test_failed_source_has_a_result_without_confidence() -> None:
    """It was tried; an older output of it does not count any more."""
    play = Play(
        "call a call a { on_fail = continue } "
        'gate quality_gate { name = "good" source = a threshold = 1 on_fail = continue }'
    )
    play.complete("a", structured_output='{"confidence": 99}')
    play.fail("a")

    assert "confidence 0, threshold 1" in str(play.row("good")["result_text"])


def test_quality_gate_is_evaluated_in_a_dry_run() -> None:
    """It changes nothing outside."""
    play = Play(GATE, dry_run=True)
    play.complete("a", structured_output='{"confidence": 1}')

    assert play.status == "failed"
