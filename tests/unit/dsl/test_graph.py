"""Pictures of workflows and runs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET  # our own output, no entities
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from runkon_server.dsl.ast import Parallel
from runkon_server.dsl.graph import GraphFormat, graph
from runkon_server.dsl.graphing.colours import COLOURS
from runkon_server.dsl.graphing.layout import lay_out
from runkon_server.dsl.graphing.regions import chart
from runkon_server.dsl.queries import all_nodes
from support.workflows import accepted, read, sources

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition

SVG = "{http://www.w3.org/2000/svg}"
PROGRAM = """
    call plan { retries = 2 on_fail = triage }
    if plan.more { call extra }
    while plan.open { max_iterations = 3 call step }
    do { max_iterations = 2 call fix } while fix.again
    parallel { name = reviews min_success = 1 call a { if = plan.deep } call b }
    do { gate human_review { name = ship approvers = 2 } }
    always { call notify }
"""
MERMAID = """\
flowchart TD
  n0(("start"))
  n1["plan<br/>3 attempts<br/>on failure: triage"]
  n2{"plan.more?"}
  n3["extra"]
  n4{"plan.open?<br/>up to 3 passes"}
  n5["step"]
  n6["fix"]
  n7{"fix.again?<br/>up to 2 passes"}
  n8(["reviews: 1 of 2"])
  n9["a<br/>if plan.deep"]
  n10["b"]
  n11((" "))
  n14(("end"))
  subgraph f0 ["do"]
    n12{{"ship<br/>human_review<br/>2 approvers"}}
  end
  subgraph f1 ["always"]
    n13["notify"]
  end
  n0 --> n1
  n1 --> n2
  n2 -->|yes| n3
  n3 --> n4
  n2 -->|no| n4
  n4 -->|yes| n5
  n5 -.-> n4
  n4 -->|no| n6
  n7 -.->|yes| n6
  n6 --> n7
  n7 -->|no| n8
  n8 --> n9
  n8 --> n10
  n9 --> n11
  n10 --> n11
  n11 --> n12
  n12 --> n13
  n13 --> n14
"""


def as_json(definition: Definition, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(graph(definition, GraphFormat.JSON, **options))
    return found


def test_mermaid() -> None:
    assert graph(accepted(PROGRAM), GraphFormat.MERMAID) == MERMAID


def test_dot() -> None:
    lines = graph(accepted('if a.b { call "x/y.md" }'), GraphFormat.DOT).splitlines()

    assert lines[0] == 'digraph "w" {'
    assert any(line.startswith('  "body.0" [shape=diamond label="a.b?"') for line in lines)
    assert '  "body.0" -> "body.0.0" [label="yes"];' in lines
    assert '  "body.0" -> "end" [label="no"];' in lines
    assert lines[-1] == "}"


def test_an_unless_swaps_the_answers() -> None:
    edges = as_json(accepted("unless a.b { call x }"))["edges"]

    assert {(edge["to"], edge["label"]) for edge in edges if edge["from"] == "body.0"} == {
        ("body.0.0", "no"),
        ("end", "yes"),
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_every_step_is_on_a_way_from_start_to_end(source: str) -> None:
    """The laws of a flow chart, over any program."""
    definition = read(source).definition
    assert definition is not None
    found = as_json(definition)
    ids = [node["id"] for node in found["nodes"]]
    edges = [(edge["from"], edge["to"]) for edge in found["edges"]]

    assert len(set(ids)) == len(ids)
    assert {end for edge in edges for end in edge} <= set(ids)
    assert reachable("start", edges) == set(ids)
    assert reachable("end", [(target, source) for source, target in edges]) == set(ids)
    forward = [(edge["from"], edge["to"]) for edge in found["edges"] if not edge["back"]]
    assert is_acyclic(ids, forward)


def reachable(start: str, edges: list[tuple[str, str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for source, target in edges:
            if source == here and target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def is_acyclic(ids: list[str], edges: list[tuple[str, str]]) -> bool:
    left = set(ids)
    while left:
        free = {node for node in left if not any(s in left and t == node for s, t in edges)}
        if not free:
            return False
        left -= free
    return True


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_shapes_lie_on_the_canvas_and_apart(source: str) -> None:
    """No two steps overlap, and nothing is cut off."""
    definition = read(source).definition
    assert definition is not None
    drawing = lay_out(chart(definition))
    boxes = [(b.x - b.width / 2, b.y, b.x + b.width / 2, b.y + b.height) for b in drawing.boxes]
    boxes += [
        (d.x - d.width / 2, d.y - d.height / 2, d.x + d.width / 2, d.y + d.height / 2)
        for d in drawing.diamonds
    ]

    for index, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height
        for other_left, other_top, other_right, other_bottom in boxes[:index]:
            apart = left >= other_right or right <= other_left
            assert apart or top >= other_bottom or bottom <= other_top
    for wire in drawing.wires:
        for x, y in wire.points:
            assert 0 <= x <= drawing.width
            assert 0 <= y <= drawing.height


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_an_svg_is_well_formed_and_names_every_step(source: str) -> None:
    definition = read(source).definition
    assert definition is not None
    root = ET.fromstring(graph(definition, GraphFormat.SVG))  # noqa: S314 - made here
    paths = [group.get("data-path") for group in root.iter(f"{SVG}g")]
    branches = sum(len(node.calls) for node in all_nodes(definition) if isinstance(node, Parallel))

    assert len(paths) == len(set(paths)) >= branches


def test_steps_are_found_by_their_path() -> None:
    """Section and child numbers, the way a run's rows name them."""
    kinds = {node["id"]: node["kind"] for node in as_json(accepted(PROGRAM))["nodes"]}

    assert kinds["body.0"] == "call"
    assert kinds["body.1"] == "decision"
    assert kinds["body.1.0"] == "call"
    assert kinds["body.4.1"] == "call"
    assert kinds["body.5.0"] == "gate"
    assert kinds["always.0"] == "call"


@pytest.mark.parametrize("status", COLOURS)
def test_a_run_is_drawn_in_colours(status: str) -> None:
    """Never by colour alone: the SVG also spells the status out."""
    definition = accepted(PROGRAM)
    statuses = {"body.4.1": status, "body.99": "completed"}
    fill = COLOURS[status].fill

    assert f"class n10 {status}" in graph(definition, GraphFormat.MERMAID, statuses=statuses)
    assert f'fillcolor="{fill}"' in graph(definition, GraphFormat.DOT, statuses=statuses)
    drawn = graph(definition, GraphFormat.SVG, statuses=statuses)
    assert f'fill="{fill}"' in drawn
    assert f">{status}</text>" in drawn
    (node,) = (n for n in as_json(definition, statuses=statuses)["nodes"] if n["id"] == "body.4.1")
    assert node["status"] == status


def test_an_unknown_status_is_kept_but_drawn_plain() -> None:
    definition = accepted("call x")
    statuses = {"body.0": "on fire"}

    assert as_json(definition, statuses=statuses)["nodes"][1]["status"] == "on fire"
    assert "class n1" not in graph(definition, GraphFormat.MERMAID, statuses=statuses)


EVIL = '"]; <script>alert(1)</script> \\" #35; `x` {{y}} \x1b\n]]>'


def test_labels_cannot_break_out() -> None:
    """Names are what an author wrote; a picture of them is shown in other people's browsers."""
    text = EVIL.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    definition = accepted(f'call "{text}"')

    drawn = graph(definition, GraphFormat.SVG)
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    ET.fromstring(drawn)  # noqa: S314 - made here
    mermaid = graph(definition, GraphFormat.MERMAID)
    assert "<script" not in mermaid
    assert len(mermaid.splitlines()) == 6
    dot = graph(definition, GraphFormat.DOT)
    assert len(dot.splitlines()) == len(graph(accepted("call x"), GraphFormat.DOT).splitlines())
    assert as_json(definition)["nodes"][1]["label"] == EVIL


def test_long_labels_are_cut_in_pictures_only() -> None:
    name = "x" * 120
    drawn = graph(accepted(f"call {name}"), GraphFormat.SVG)

    assert f">{name}<" not in drawn
    assert f"call {name}" in drawn


@pytest.mark.parametrize("graph_format", GraphFormat)
def test_every_format_takes_the_largest_workflow(graph_format: GraphFormat) -> None:
    """Deep, wide and long at once, within the test's time limit."""
    deep = "if a.b { " * 20 + "call x " + "} " * 20
    wide = "parallel { " + "call y " * 500 + "}"
    frames = "do { call z } " * 400
    text = graph(accepted(f"{deep} {wide} {frames}"), graph_format)

    assert text.endswith("\n")


@pytest.mark.parametrize("graph_format", GraphFormat)
def test_an_empty_workflow_has_a_picture(graph_format: GraphFormat) -> None:
    definition = accepted("if a.b { } do { } do { max_iterations = 1 } while a.b always { }")
    assert graph(definition, graph_format)
    assert graph(accepted(""), graph_format)
