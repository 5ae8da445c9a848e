"""Sources and inputs: what is refused under which name, and what is done only once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runkon_server import errors
from runkon_server.api.definitions import Definitions, check_source, hash_of
from runkon_server.dsl.ast import CallWorkflow
from runkon_server.dsl.unsupported import NOT_SERVED
from runkon_server.runtime.inputs import complete_inputs
from runkon_server.store.loading import StoredDefinition
from support.workflows import accepted

if TYPE_CHECKING:
    from collections.abc import Mapping


async def refused(source: str, *, strictly: bool = False) -> errors.InvalidArgumentError:
    """The error that a source is refused with."""
    checked = await Definitions().check(source, {}, {})
    with pytest.raises(errors.InvalidArgumentError) as raised:
        checked.accept(strictly=strictly)
    return raised.value


@pytest.mark.parametrize(
    ("source", "kind", "place"),
    [
        ("workflow w {\n  call\n}", errors.DslSyntaxError, "source:3:1"),
        ("workflow w { call a\x00 }", errors.DslSyntaxError, "source:1:20"),
        ("workflow w { call a { retries = 4294967296 } }", errors.DslLimitError, "source:1:33"),
        ("workflow w { if a.b { call c } }", errors.DslSemanticError, "source:1:17"),
        ("x" * 300_000, errors.DslLimitError, "source:1:1"),
    ],
    ids=["syntax", "nul", "limit", "meaning", "size"],
)
async def test_a_source_is_refused_with_the_place(
    source: str, kind: type[errors.InvalidArgumentError], place: str
) -> None:
    error = await refused(source)

    assert type(error) is kind
    assert error.violations[0].field == place


async def test_every_error_of_a_source_is_a_violation_and_warnings_are_none() -> None:
    error = await refused("workflow w { call a { x = 1 } if b.c { } if d.e { } }")

    assert [each.field for each in error.violations] == ["source:1:34", "source:1:45"]
    assert all(each.description.startswith("WF501: ") for each in error.violations)


NAMING = "workflow w { call a { output = verdict with = [tone] } }"
SCHEMA = "fields:\n  summary: string\n"


@pytest.mark.parametrize(
    ("schemas", "snippets", "said"),
    [
        ({}, {"tone": "t"}, "WF562: there is no output schema `verdict`"),
        ({"verdict": SCHEMA}, {}, "WF561: there is no prompt snippet `tone`"),
        ({"verdict": "fields: ["}, {"tone": "t"}, "WF563: the output schema `verdict` cannot be"),
        ({"verdict": "a: &a [*a]"}, {"tone": "t"}, "WF563: the output schema `verdict` cannot be"),
        ({"verdict": "[" * 50_000}, {"tone": "t"}, "WF563: the output schema `verdict` cannot be"),
    ],
    ids=["no schema", "no snippet", "no YAML", "a circle", "too deep"],
)
async def test_what_a_source_names_has_to_come_with_it(
    schemas: dict[str, str], snippets: dict[str, str], said: str
) -> None:
    checked = await Definitions().check(NAMING, schemas, snippets)

    assert any(f"{each.code}: {each.message}".startswith(said) for each in checked.diagnostics)
    with pytest.raises(errors.InvalidArgumentError):
        checked.accept()


async def test_what_came_with_a_source_is_pinned_with_it() -> None:
    """Copies, which the caller's own maps cannot change."""
    snippets = {"tone": "Be brief.", "unused": "x"}
    checked = await Definitions().check("workflow w { call a }", {"verdict": SCHEMA}, snippets)
    snippets.clear()

    pinned = checked.accept()
    assert pinned.output_schemas == {"verdict": SCHEMA}
    assert pinned.snippets == {"tone": "Be brief.", "unused": "x"}


async def test_strictly_a_warning_refuses_as_well() -> None:
    checked = await Definitions().check("workflow w { call a { x = 1 } }", {}, {})

    assert checked.accept().definition.name == "w"
    with pytest.raises(errors.DslSemanticError):
        checked.accept(strictly=True)


def test_enormous_and_deep_sources_are_refused_as_such() -> None:
    """Nested blocks, many steps, a long name: few problems are told, the first is a limit."""
    for source in (
        "workflow w {" + "do {" * 50_000,
        "workflow w {" + "call a " * 30_000 + "}",
        "workflow " + "w" * 200_000 + " {}",
    ):
        checked = check_source(source, "h")

        assert len(checked.diagnostics) < 3
        with pytest.raises(errors.DslLimitError):
            checked.accept()


async def test_a_source_is_read_once() -> None:
    """The very same object comes back, for short texts and for those read on a thread."""
    definitions = Definitions()
    for source in ("workflow w { call a }", "workflow w { " + "call a " * 1000 + "}"):
        first = await definitions.check(source, {}, {})

        assert await definitions.check(source, {}, {}) is first


async def test_definitions_at_hand_take_bounded_memory() -> None:
    """Many large sources: the first one is gone, the last one is there."""
    definitions = Definitions()
    sources = [f"workflow w{n} {{ " + "call a " * 1500 + "}" for n in range(60)]
    checked = [await definitions.check(source, {}, {}) for source in sources]

    assert await definitions.check(sources[-1], {}, {}) is checked[-1]
    assert await definitions.check(sources[0], {}, {}) is not checked[0]


async def test_what_was_stored_comes_back_as_it_was() -> None:
    """With the schemas and snippets that were stored beside it."""
    beside = {"output_schemas": {"verdict": SCHEMA}, "snippets": {"tone": "t"}}
    source = "workflow w { call a { retries = 2 } }"
    checked = await Definitions().check(source, *beside.values())
    stored = StoredDefinition(snapshot=checked.snapshot, **beside)
    loaded = await Definitions().load(checked.content_hash, stored)

    assert loaded == checked.accept()


async def test_a_definition_of_a_newer_server_is_refused_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stored by a server that runs child workflows; one is made that does not."""
    snapshot = check_source("workflow w { call workflow v }", "h").snapshot
    stored = StoredDefinition(snapshot=snapshot, output_schemas={}, snippets={})
    monkeypatch.setitem(NOT_SERVED, CallWorkflow, "calls of other workflows")

    with pytest.raises(errors.DslUnsupportedError):
        await Definitions().load("h", stored)


async def test_a_definition_with_a_step_of_an_unknown_kind_is_refused_when_it_is_used() -> None:
    snapshot = check_source("workflow w { call a }", "h").snapshot
    unknown = snapshot.replace('"type":"call"', '"type":"warp"')
    stored = StoredDefinition(snapshot=unknown, output_schemas={}, snippets={})

    assert unknown != snapshot
    with pytest.raises(errors.DslUnsupportedError, match="warp"):
        await Definitions().load("h", stored)


def test_the_hash_covers_everything_and_not_its_order() -> None:
    base = hash_of("s", {"a": "1", "b": "2"}, {"c": "3"})

    assert hash_of("s", {"b": "2", "a": "1"}, {"c": "3"}) == base
    assert len({base, hash_of("t", {"a": "1", "b": "2"}, {"c": "3"})}) == 2
    assert hash_of("s", {"c": "3"}, {"a": "1", "b": "2"}) != base
    assert len(base) == 64


INPUTS = """
inputs {
    ticket required description = "what to do"
    branch default = "main"
    loud boolean
    safe boolean default = true
}
"""


def test_inputs_are_completed_by_what_is_declared() -> None:
    definition = accepted(INPUTS)

    assert complete_inputs(definition, {"ticket": "T-1", "loud": "TRUE"}) == {
        "ticket": "T-1",
        "branch": "main",
        "loud": "TRUE",
        "safe": "true",
    }


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, ["inputs.ticket"]),
        ({"ticket": "t", "color": "red"}, ["inputs.color"]),
        ({"ticket": "t", "loud": "maybe"}, ["inputs.loud"]),
        ({"a": "", "b": "", "loud": ""}, ["inputs.a", "inputs.b", "inputs.ticket", "inputs.loud"]),
    ],
)
def test_every_wrong_input_is_named(given: Mapping[str, str], wrong: list[str]) -> None:
    with pytest.raises(errors.InputsInvalidError) as raised:
        complete_inputs(accepted(INPUTS), given)

    assert [each.field for each in raised.value.violations] == wrong


def test_a_missing_input_is_described() -> None:
    with pytest.raises(errors.InputsInvalidError, match="what to do"):
        complete_inputs(accepted(INPUTS), {})


async def test_the_sources_of_a_batch_leave_the_event_loop_to_others() -> None:
    """One after the other they would hold it for a second and more."""
    definitions = Definitions()
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    sources = [f"workflow w{number} {{ call a }}" for number in range(50)]
    await asyncio.gather(*(definitions.check(source, {}, {}) for source in sources))
    counting.cancel()

    assert rounds > 5  # held by one after the other, the loop would turn once or twice


async def test_a_source_that_comes_many_times_at_once_is_read_once() -> None:
    """Also when one of those who wait for it goes away."""
    definitions = Definitions()
    source = "workflow w {" + " call a" * 1_000 + " }"
    first = asyncio.create_task(definitions.check(source, {}, {}))
    others = [asyncio.create_task(definitions.check(source, {}, {})) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()

    checked = await asyncio.gather(*others)

    assert all(each is checked[0] for each in checked)
