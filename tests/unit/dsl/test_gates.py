"""How gates get their names, and which options their types take."""

from __future__ import annotations

import pytest

from runkon_server.dsl.ast import Gate, QualityGate
from runkon_server.dsl.queries import all_nodes
from support.workflows import accepted, codes


def names(text: str) -> list[str]:
    return [node.name for node in all_nodes(accepted(text)) if isinstance(node, Gate | QualityGate)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate a { } gate b { }", ["a", "b"]),
        ("gate a { } gate a { } gate b { } gate a { }", ["a", "a-2", "b", "a-3"]),
        ("gate a { name = ship } gate a { }", ["ship", "a"]),
        ("gate b { name = a-2 } gate a { } gate a { }", ["a-2", "a", "a-3"]),
        ("gate a { } gate b { name = a } gate a { }", ["a", "a", "a-2"]),
        ("gate a { name = x } gate b { name = x }", ["x", "x"]),
        ("always { gate a { } } if c.d { gate a { } }", ["a-2", "a"]),
        ("gate quality_gate { source = s threshold = 1 name = good }", ["good"]),
    ],
)
def test_a_gate_without_a_name_is_called_by_its_type(text: str, expected: list[str]) -> None:
    """IMP-17: the second of a type is numbered, in source order; written names stay."""
    assert names(text) == expected


def test_repeated_names_give_warnings() -> None:
    assert codes("gate a { } gate a { }") == ["WF331"]
    assert codes("gate a { name = x } gate a { name = x }") == ["WF332"]


@pytest.mark.parametrize("gate_type", ["human_review", "human_approval"])
@pytest.mark.parametrize("option", ["mode = min_approvals", "min_approvals = 2"])
def test_people_are_not_counted_like_reviews(gate_type: str, option: str) -> None:
    """IMP-16: a quorum of people is `approvers`."""
    assert codes(f"gate {gate_type} {{ {option} }}") == ["WF321"]


@pytest.mark.parametrize("option", ["options = [a]", "approvers = 2", "exclude_starter = true"])
def test_pull_requests_take_no_options_of_people(option: str) -> None:
    assert codes(f"gate pr_checks {{ {option} }}") == ["WF321"]


def test_custom_types_take_every_option() -> None:
    text = "gate deploy { mode = min_approvals min_approvals = 2 approvers = 2 options = [a] }"
    assert codes(text) == []


def test_approvers_are_at_least_one() -> None:
    assert codes("gate human_review { approvers = 0 }") == ["WF314"]
    assert codes("gate pr_approval { min_approvals = 0 }") == ["WF314"]


def test_empty_options_are_not_the_same_as_none() -> None:
    with_list, with_map, without = accepted(
        "gate a { options = [] } gate b { options = { } } gate c { }"
    ).body

    assert isinstance(with_list, Gate)
    assert isinstance(with_map, Gate)
    assert isinstance(without, Gate)
    assert with_list.options == with_map.options == ()
    assert without.options is None
