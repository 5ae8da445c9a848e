"""What the server's own item providers make of a definition; no database is asked."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import timedelta
from typing import Any

import pytest

from runkon_server.core.decision import ItemsWork
from runkon_server.core.facts import Dependency, Item
from runkon_server.runtime.providers import ProviderError, listed, run_filter


def work(provider: str = "list", **fields: Any) -> ItemsWork:
    values = {"scope": None, "filter": {}, "ordered": False, "items_max": 10_000} | fields
    return ItemsWork(provider=provider, **values)


def items_of(elements: object) -> ItemsWork:
    return work(scope={"items": json.dumps(elements)})


def test_a_text_and_a_number_are_their_own_ids() -> None:
    found = listed("t", items_of(["a", 7]))

    assert found.items == (Item("", "a", "", {}), Item("", "7", "", {}))


def test_an_object_has_an_id_and_a_context() -> None:
    element = {"id": "a", "type": "t", "ref": "A", "n": 1, "ok": True, "of": ["x"], "s": "text"}

    (item,) = listed("t", items_of([element])).items

    assert item == Item("t", "a", "A", {"n": "1", "ok": "true", "of": '["x"]', "s": "text"})


def test_dependencies_name_the_blocker_first() -> None:
    found = listed("t", items_of(["a", {"id": "b", "depends_on": ["a", "z"]}]))

    assert found.dependencies == (Dependency("a", "b"), Dependency("z", "b"))
    assert found.items[1].context == {}


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({}, "array"),
        ([None], "item 0"),
        ([True], "item 0"),
        (["ok", {}], "item 1 has no `id`"),
        (["x" * 257], "item 0 has no `id` of"),
        ([{"id": "a", "depends_on": "b"}], "depends_on"),
        ([{"id": "a", "big": "x" * 70_000}], "larger"),
        ([{"id": "a", "bad": "\x00"}], "stored"),
        ([{"id": "\ud800"}], "stored"),
        ([{"id": "a", "depends_on": ["\ud800"]}], "stored"),
        ([{"id": "a", "depends_on": [{"\x00": 1}, "\x00"]}], "stored"),
    ],
)
def test_elements_that_are_no_items_are_refused(elements: object, why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        listed("t", items_of(elements))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"scope": {}},
        {"scope": {"items": "[]", "more": "x"}},
        {"scope": {"items": "[]"}, "filter": {"a": "b"}},
        {"scope": {"items": "[" * 100_000}},
    ],
)
def test_a_list_wants_its_items_and_nothing_beside(fields: dict[str, Any]) -> None:
    with pytest.raises(ProviderError):
        listed("t", work(**fields))


def test_an_element_that_can_just_be_read_is_an_item_or_refused() -> None:
    """To write it down again takes as much of the stack, and there may be a little less."""
    for depth in range(sys.getrecursionlimit() - 400, sys.getrecursionlimit() + 1):
        text = f'[{{"id": "a", "deep": {"[" * depth}{"]" * depth}}}]'
        with contextlib.suppress(ProviderError):
            listed("t", work(scope={"items": text}))


def test_a_filter_of_runs_is_read() -> None:
    given = {
        "status": "failed, cancelled",
        "workflow": "w",
        "labels": "team=core, tier = 1",
        "older_than": "2h",
        "newer_than": "9999999999999999h",
    }

    found = run_filter("default", work("workflow_runs", filter=given))

    assert (found.statuses, found.workflow_name) == (("failed", "cancelled"), "w")
    assert found.labels == {"team": "core", "tier": "1"}
    assert found.older_than == timedelta(hours=2)
    assert found.newer_than is not None
