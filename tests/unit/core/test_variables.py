"""What tasks are told: inputs, engine variables, contexts, exports."""

from __future__ import annotations

import json

from runkon_server.core.variables import EXPORTS_BYTES, PRIOR_CONTEXTS_BYTES
from support.plays import Play


def output(**fields: object) -> str:
    """A structured output."""
    return json.dumps(fields)


def test_133_first_step_has_no_context() -> None:
    """An empty text and an empty list; no output yet."""
    task = Play("call a").task("a")

    assert task.inputs == {"workflow_run_id": "01RUN", "dry_run": "false", "prior_context": ""}
    assert task.prior_contexts == "[]"


def test_contexts_are_handed_on() -> None:
    """The last one as text, all as JSON, under the step's key and pass."""
    play = Play('call "x/a.md" do { max_iterations = 2 call b } while b.m')
    play.complete("x/a.md", context="planned", output_file="plan.md")
    play.complete("b", context="more", markers=("m",), structured_output="{}")
    task = play.task("b")

    assert task.inputs["prior_context"] == "more"
    assert task.inputs["prior_output"] == "{}"
    assert task.inputs["prior_output_file"] == "plan.md"
    assert json.loads(task.prior_contexts or "") == [
        {
            "step": "a",
            "iteration": 0,
            "context": "planned",
            "markers": [],
            "structured_output": None,
            "output_file": "plan.md",
        },
        {
            "step": "b",
            "iteration": 0,
            "context": "more",
            "markers": ["m"],
            "structured_output": "{}",
            "output_file": None,
        },
    ]


def test_long_contexts_are_not_sent_along() -> None:
    """Just under the limit they are, above it never again; the last one always is."""
    play = Play("call a call b call c call d")
    entry = len(
        '[{"step":"a","iteration":0,"context":"","markers":[],"structured_output":null,'
        '"output_file":null}]'
    )
    room = PRIOR_CONTEXTS_BYTES - entry
    full = "ä" * (room // 2) + "x" * (room % 2)
    too_much = Play("call a call b")
    too_much.complete("a", context=full + "x")
    assert too_much.task("b").prior_contexts is None
    play.complete("a", context=full)
    assert len((play.task("b").prior_contexts or "").encode()) == PRIOR_CONTEXTS_BYTES
    play.complete("b", context="x")
    assert play.task("c").prior_contexts is None
    play.complete("c", context="y" * 100_000)

    assert play.task("d").prior_contexts is None
    assert play.task("d").inputs["prior_context"] == "y" * 100_000


def test_134_inputs_pass_through_but_not_over_engine_names() -> None:
    """An input with an engine's name is never seen; not even where the engine sets none."""
    play = Play("call a", {"ticket": "7", "workflow_run_id": "mine", "gate_feedback": "yes"})
    inputs = play.task("a").inputs

    assert inputs["ticket"] == "7"
    assert inputs["workflow_run_id"] == "01RUN"
    assert "gate_feedback" not in inputs


def test_135_exports_stay_until_replaced() -> None:
    """Text fields of a structured output become variables."""
    play = Play("call a call b call c call d")
    play.complete("a", structured_output=output(base="main", count=3, flag=True))
    assert play.task("b").inputs["base"] == "main"
    assert play.task("b").inputs.keys().isdisjoint({"count", "flag"})
    play.complete("b", structured_output=output(other="x"))
    assert play.task("c").inputs["base"] == "main"
    play.complete("c", structured_output=output(base="dev"))

    assert play.task("d").inputs["base"] == "dev"


def test_136_137_reserved_names_are_not_exported() -> None:
    """Engine names, declared inputs even without a value, markers and context."""
    play = Play("inputs { ticket required note } call a call b", {"ticket": "7"})
    play.complete(
        "a",
        context="real",
        structured_output=output(
            dry_run="true", prior_context="x", gate_feedback="x", workflow_run_id="x",
            failed_step="x", ticket="8", note="x", context="x", markers=["x"], mine="y",
        ),
    )  # fmt: skip
    inputs = play.task("b").inputs

    assert (inputs["dry_run"], inputs["prior_context"], inputs["ticket"]) == ("false", "real", "7")
    assert inputs["mine"] == "y"
    assert inputs.keys().isdisjoint({"gate_feedback", "note", "context", "markers", "failed_step"})


def test_138_malformed_outputs_do_no_harm() -> None:
    """Broken JSON, no object, wrong types: that output exports nothing, others still do."""
    texts = ["{", "[1]", output(markers="m", lost="x"), output(context=5, lost="x"), "[" * 99_999]
    calls = " ".join(f"call s{number}" for number in range(len(texts) + 2))
    play = Play(calls)
    play.complete("s0", structured_output=output(kept="yes"))
    for number, text in enumerate(texts, 1):
        play.complete(f"s{number}", structured_output=text)

    inputs = play.task(f"s{len(texts) + 1}").inputs
    assert inputs["kept"] == "yes"
    assert "lost" not in inputs
    assert inputs["prior_output"] == texts[-1]


def test_exports_that_no_database_could_store_are_left_out() -> None:
    """JSON can spell a NUL and half a surrogate pair."""
    play = Play("call a call b")
    play.complete(
        "a", structured_output='{"x": "\\u0000", "y": "\\ud800", "z\\u0000": "", "ok": "é"}'
    )

    assert play.task("b").inputs.keys() >= {"ok"}
    assert play.task("b").inputs.keys().isdisjoint({"x", "y", "z\0"})


def test_exports_are_bounded() -> None:
    """What does not fit beside the others is left out; a smaller value of the same name fits."""
    play = Play("call a call b call c call d")
    play.complete("a", structured_output=output(big="x" * (EXPORTS_BYTES - 10)))
    play.complete("b", structured_output=output(other="y" * 10, big="x" * 9))
    assert play.task("c").inputs["big"] == "x" * 9
    assert "other" not in play.task("c").inputs
    play.complete("c", structured_output=output(other="y" * 10))

    assert play.task("d").inputs["other"] == "y" * 10


def test_failed_steps_tell_nothing() -> None:
    """No context, no export, no output."""
    play = Play("call a { on_fail = continue } call b")
    play.fail("a", structured_output=output(x="y"), context="half")

    assert play.task("b").inputs.keys() == {"workflow_run_id", "dry_run", "prior_context"}
    assert play.task("b").prior_contexts == "[]"
