"""The stored form of definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from runkon_server.dsl import ast
from runkon_server.dsl.ast import AgentKind, AgentRef, StepMarker
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import SnapshotError, dump, load
from support.workflows import accepted, read, short, sources

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition, Node

GOLDEN = Path(__file__).parent / "golden"
CALL = {"type": "call", "agent": {"kind": "name", "value": "x"}}
GATE = {
    "type": "gate",
    "name": "g",
    "gate_type": "human_review",
    "timeout_secs": 60,
    "on_timeout": "fail",
}
QUALITY = GATE | {"gate_type": "quality_gate", "source": "x", "threshold": 1}
PARALLEL = {"type": "parallel", "calls": [{"kind": "name", "value": "x"}]}


def document(*body: dict[str, Any], **fields: Any) -> str:
    """A snapshot with the least that it must have."""
    minimal = {
        "name": "w",
        "description": "",
        "trigger": "manual",
        "inputs": [],
        "body": list(body),
        "always": [],
        "source_path": "w.wf",
    }
    return json.dumps(minimal | fields)


def loaded(node: dict[str, Any]) -> Node:
    (found,) = load(document(node)).body
    return found


def golden(name: str) -> tuple[Definition, str]:
    source = GOLDEN / f"{name}.wf"
    definition = parse(source.read_text(encoding="utf-8"), source.name).definition
    assert definition is not None
    return definition, source.with_suffix(".json").read_text(encoding="utf-8").removesuffix("\n")


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.wf")))
def test_a_definition_has_the_recorded_snapshot(name: str) -> None:
    """Byte for byte; `nightly` is the example of the specification, `everything` its whole §3."""
    definition, recorded = golden(name)

    assert dump(definition) == recorded
    assert load(recorded) == definition


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_loading_gives_back_what_was_dumped(source: str) -> None:
    definition = read(source).definition
    assert definition is not None

    assert load(dump(definition)) == definition


def test_newer_options_leave_no_trace_when_they_are_not_used() -> None:
    definition, _ = golden("everything")
    text = dump(definition)

    for key in ("retry_delay", "call_retry_delay", "approvers", "exclude_starter"):
        assert f'"{key}"' not in text


def test_missing_fields_take_their_defaults() -> None:
    assert loaded(CALL) == ast.Call(agent=AgentRef(kind=AgentKind.NAME, value="x"))
    assert loaded(GATE) == ast.Gate(name="g", gate_type="human_review", timeout_s=60)
    assert loaded({"type": "do", "body": []}) == ast.Do(body=())
    assert loaded(PARALLEL) == ast.Parallel(
        calls=(ast.ParallelCall(agent=AgentRef(kind=AgentKind.NAME, value="x")),)
    )


def test_unknown_fields_are_ignored() -> None:
    assert loaded(CALL | {"colour": "red"}) == loaded(CALL)


def test_bot_name_is_read_as_the_identity() -> None:
    """IMP-30: snapshots of older versions."""
    node = loaded(CALL | {"bot_name": "robot"})

    assert isinstance(node, ast.Call)
    assert node.as_identity == "robot"


def test_gate_options_may_be_a_list() -> None:
    """IMP-30: each text stands for itself."""
    node = loaded(GATE | {"options": ["go", "stop", "go"]})

    assert isinstance(node, ast.Gate)
    assert node.options == (("go", "go"), ("stop", "stop"))


@pytest.mark.parametrize(
    "broken",
    [{"source": None}, {"source": 1}, {"threshold": None}, {"threshold": "1"}, {"threshold": 101}],
)
def test_a_broken_quality_gate_is_an_error(broken: dict[str, Any]) -> None:
    """IMP-31: the original drops source, threshold and policy together and goes on."""
    with pytest.raises(SnapshotError, match=r"body\[0\]\.(source|threshold)"):
        loaded(QUALITY | broken)


def test_per_call_settings_are_found_by_index() -> None:
    calls = [{"kind": "name", "value": name} for name in "abc"]
    settings = {"call_if": {"2": ["s", "m.n"]}, "call_retries": {"0": 0}}
    node = loaded(PARALLEL | {"calls": calls} | settings)

    assert isinstance(node, ast.Parallel)
    assert [call.retries for call in node.calls] == [0, None, None]
    assert node.calls[2].condition == StepMarker(step="s", marker="m.n")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ("[]", "the document"),
        ("null", "the document"),
        (document(name=1), "name"),
        (document(trigger="hourly"), "trigger"),
        (document(trigger=["manual"]), "trigger"),
        (document(targets="repo"), "targets"),
        (document(targets=[1]), "targets"),
        (document(inputs=None), "inputs"),
        (document(inputs=[{"name": "a"}]), r"inputs\[0\].required"),
        (document(body=[1]), r"body\[0\]"),
        (document({"type": "foreach"}), r"body\[0\].type"),
        (document({"type": "call"}), r"body\[0\].agent"),
        (document(CALL | {"agent": {"kind": "url", "value": "x"}}), "agent.kind"),
        (document(CALL | {"retries": -1}), "retries"),
        (document(CALL | {"retries": True}), "retries"),
        (document(CALL | {"retries": 1.0}), "retries"),
        (document(CALL | {"retries": 2**32}), "retries"),
        (document(CALL | {"timeout": "soon"}), "timeout"),
        (document(CALL | {"on_fail": {"kind": "stop"}}), "on_fail.kind"),
        (document(CALL | {"with": "x"}), "with"),
        (document({"type": "if", "body": []}), "condition"),
        (document({"type": "if", "body": [], "condition": {"kind": "x"}}), "condition.kind"),
        (document({"type": "do", "body": [{"type": "do"}]}), r"body\[0\].body\[0\].body"),
        (document(PARALLEL | {"call_if": {"0": ["a"]}}), "call_if.0"),
        (document(PARALLEL | {"call_retries": {"1": 0}}), "call_retries"),
        (document(PARALLEL | {"fail_fast": "yes"}), "fail_fast"),
        (document(GATE | {"options": "scan"}), "options"),
        (document(GATE | {"options": {"a": 1}}), "options"),
    ],
    ids=short,
)
def test_what_is_no_snapshot_names_the_first_wrong_field(text: str, where: str) -> None:
    with pytest.raises(SnapshotError, match=where):
        load(text)


def test_deep_snapshots_are_refused_before_the_stack_is() -> None:
    node: dict[str, Any] = {"type": "do", "body": []}
    for _ in range(300):
        node = {"type": "do", "body": [node]}

    with pytest.raises(SnapshotError, match="nested too deeply"):
        load(document(node))


def test_maps_keep_their_source_order() -> None:
    """IMP-29: the original writes them in hash order."""
    text = dump(accepted("call workflow c { inputs { z = 1 a = 2 m = 3 } }"))

    assert '"inputs":{"z":"1","a":"2","m":"3"}' in text
