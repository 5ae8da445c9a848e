"""What is said about snapshots, the original's and those of its older versions."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import dump
from runkon_server.dsl.snapshots.explaining import read_snapshot
from runkon_server.dsl.validate_set import validate_set
from support.workflows import accepted

AGENT: Final = {"kind": "name", "value": "x"}
CALL: Final = {"type": "call", "agent": AGENT}
GATE: Final = {"type": "gate", "name": "g", "gate_type": "human_review", "timeout_secs": 60,
               "on_timeout": "fail"}  # fmt: skip


def snapshot(*nodes: dict[str, Any], **fields: Any) -> str:
    document = {
        "name": "w",
        "description": "",
        "trigger": "manual",
        "inputs": [],
        "body": nodes,
        "always": [],
        "source_path": "w.wf",
    }
    return json.dumps(document | fields)


def found(text: str) -> list[str]:
    return [f"{each.code} {each.message}" for each in read_snapshot(text, "w.json").diagnostics]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (snapshot(CALL, GATE), []),
        (snapshot(CALL | {"bot_name": None, "colour": None}), []),
        (snapshot(CALL | {"retry_delay": None}, GATE | {"approvers": 1}), []),
        (
            snapshot({"type": "do", "body": [CALL | {"bot_name": "robot"}]}),
            ["WF702 `body[0].body[0].bot_name` is the older name of `as_identity`"],
        ),
        (
            snapshot(CALL | {"bot_name": "robot", "as_identity": "me"}),
            ["WF703 `body[0].bot_name` is not known and has no effect"],
        ),
        (
            snapshot({"type": "do", "body": [], "bot_name": "robot"}),
            ["WF703 `body[0].bot_name` is not known and has no effect"],
        ),
        (
            snapshot(CALL, GATE | {"options": ["go", "stop"]}),
            ["WF702 `body[1].options` is a list, as older versions wrote it"],
        ),
        (snapshot(GATE | {"options": {"go": "Go"}}), []),
        (
            snapshot(CALL | {"agent": AGENT | {"plugin": "p"}}, priority=3),
            [
                "WF703 `body[0].agent.plugin` is not known and has no effect",
                "WF703 `priority` is not known and has no effect",
            ],
        ),
        (
            snapshot({"type": "foreach"}),
            ["WF701 body[0].type is 'foreach', which is no kind of step"],
        ),
        ("{", ["WF701 the snapshot is not JSON"]),
    ],
)  # fmt: skip
def test_what_is_read_otherwise_or_not_at_all_is_told(text: str, expected: list[str]) -> None:
    """IMP-30 and IMP-31: with the path inside the document."""
    assert found(text) == expected


@pytest.mark.parametrize("missing", ["source", "threshold"])
def test_v06_a_quality_gate_without_its_settings_cannot_be_read(missing: str) -> None:
    """Only a document made by hand can be like that."""
    gate = GATE | {"gate_type": "quality_gate", "source": "x", "threshold": 1}
    del gate[missing]
    (problem,) = found(snapshot(CALL, gate))

    assert problem.startswith(f"WF701 body[1].{missing} must be")


def test_our_own_snapshots_give_nothing_to_say() -> None:
    """Whatever options they hold."""
    definition = accepted(
        "inputs { a boolean } call x { retries = 1 retry_delay = 5 as = me } if a { call y } "
        "parallel { name = both call x { retries = 1 retry_delay = 5 if = x.m } call y } "
        "gate human_review { name = ok approvers = 2 exclude_starter = true options = { a = b } } "
        "script s { run = a env = { A = b } } foreach f { over = a max_parallel = 1 workflow = c }"
    )

    assert found(dump(definition)) == []


def test_a_snapshot_is_checked_like_a_text_and_with_others() -> None:
    """Its problems have no place. It may have any name, also that of a file it was made from."""
    files = {
        "w.wf": parse("workflow w { call x }", "w.wf"),
        "old.json": read_snapshot(
            snapshot({"type": "if", "condition": {"kind": "bool_input", "input": "a"}, "body": []}),
            "old.json",
        ),
    }
    reports = validate_set(files)

    assert reports["w.wf"].diagnostics == ()
    assert reports["old.json"].render() == (
        "old.json: error WF502: `a` is not declared as a boolean input\n"
        "      = write `inputs { a boolean }`, or look at a step: `step.marker`"
    )
