"""Every word of the language has its sentences."""

from __future__ import annotations

import pytest

from runkon_server.dsl import describing
from runkon_server.dsl.describing import (
    GATE_TYPES,
    KEYWORDS,
    VARIABLES,
    WORDS,
    describe_key,
    words_of,
)
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.reserved import ENGINE_VARIABLES
from runkon_server.dsl.tokens import KEYWORDS as ALL_KEYWORDS

ROWS = [(construct, name) for construct, keys in KEYS.items() for name in keys]


def test_every_keyword_is_described() -> None:
    """All of them, and no other."""
    assert set(KEYWORDS) == ALL_KEYWORDS


@pytest.mark.parametrize(("construct", "name"), ROWS)
def test_every_option_is_described(construct: str, name: str) -> None:
    """By its phrase in `keys.py` and one sentence more."""
    key = KEYS[construct][name]
    text = describe_key(construct, name)

    assert text is not None
    assert text.startswith(f"{key.doc[0].upper()}{key.doc[1:]}. ")
    assert text.endswith(".")
    assert len(text) > len(key.doc) + 10


def test_unknown_options_are_not_described() -> None:
    """Nor is anything of a construct that is none."""
    assert describe_key("call", "nonsense") is None
    assert describe_key("nonsense", "retries") is None


def test_every_choice_is_described() -> None:
    """Each word of each option that may only be one of several; `on_fail` has two more."""
    choices = {
        (name, word)
        for keys in KEYS.values()
        for name, key in keys.items()
        for word in words_of(key)
    }

    assert choices == set(WORDS)


def test_every_gate_type_and_variable_is_described() -> None:
    """The gate types with rows of their own, the variables the engine sets."""
    types = {row.removeprefix("gate ") for row in KEYS if row.startswith("gate ")}

    assert types == set(GATE_TYPES)
    assert set(VARIABLES) == ENGINE_VARIABLES


def test_no_description_is_left_over() -> None:
    """Of options that are no more."""
    assert set(describing._DETAILS) <= {name for _, name in ROWS}
    assert set(describing._SPECIAL) <= {*ROWS, ("gate quality_gate", "timeout")}
