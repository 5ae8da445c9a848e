"""What a run's definition looks like from afar: its parts in program order, for drawing.

Made from the run's definition snapshot, so that a run is drawn as what it is pinned to. A part that
only a newer server knows becomes a leaf of its type's name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


class Shape(StrEnum):
    """How the parts inside a part are executed."""

    LEAF = "leaf"
    SEQUENCE = "sequence"
    BRANCH = "branch"
    """As a sequence, or not at all."""
    LOOP = "loop"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One node of the definition."""

    path: str
    """As in `Step.path`: the section, then child numbers from 0."""
    shape: Shape
    label: str
    parts: tuple[Part, ...] = ()


def read_outline(snapshot: str) -> tuple[Part, ...]:
    """The parts of a run.

    Args:
        snapshot: `Run.definition_snapshot`; empty gives no parts.
    """
    if not snapshot:
        return ()
    definition: Json = json.loads(snapshot)
    always = _parts(definition.get("always", []), "always")
    body = _parts(definition.get("body", []), "body")
    if not always:
        return body
    return (*body, Part(path="always", shape=Shape.SEQUENCE, label="always", parts=always))


def _parts(nodes: list[Json], path: str) -> tuple[Part, ...]:
    return tuple(_part(node, f"{path}.{index}") for index, node in enumerate(nodes))


def _part(node: Json, path: str) -> Part:
    match node["type"]:
        case "parallel":
            calls = tuple(
                Part(path=f"{path}.{index}", shape=Shape.LEAF, label=str(agent["value"]))
                for index, agent in enumerate(node["calls"])
            )
            label = " ".join(["parallel", *filter(None, [node.get("name")])])
            return Part(path=path, shape=Shape.PARALLEL, label=label, parts=calls)
        case "while" | "do_while" as kind:
            word = "while" if kind == "while" else "do … while"
            label = f"{word} {node['step']}.{node['marker']}"
            return _container(node, path, Shape.LOOP, label)
        case "if" | "unless" as kind:
            return _container(node, path, Shape.BRANCH, f"{kind} {_condition(node['condition'])}")
        case "do" | "always" as kind:
            return _container(node, path, Shape.SEQUENCE, kind)
        case kind:
            return Part(path=path, shape=Shape.LEAF, label=_leaf_label(node, kind))


def _container(node: Json, path: str, shape: Shape, label: str) -> Part:
    return Part(path=path, shape=shape, label=label, parts=_parts(node["body"], path))


def _condition(condition: Json) -> str:
    if condition["kind"] == "step_marker":
        return f"{condition['step']}.{condition['marker']}"
    return str(condition["input"])


def _leaf_label(node: Json, kind: str) -> str:
    match kind:
        case "call":
            return str(node["agent"]["value"])
        case "call_workflow":
            return f"workflow:{node['workflow']}"
        case "for_each":
            return f"foreach:{node['name']}"
        case _:
            return str(node.get("name", kind))
