"""Output schemas as YAML texts: reading one ends soon, with a schema or with why it is none.

Bad input 27 and 33, in the one other language that callers write.
"""

from __future__ import annotations

import pytest

from runkon_server.core.outputs_schema import SchemaError
from runkon_server.runtime.schemas import read_schema


def levels(first: str, each: str, *, count: int = 60) -> str:
    """Each line an anchor that stands for nine of the one before: 9 to the power of `count`."""
    lines = [f"a0: &a0 {first}"]
    for number in range(1, count):
        before = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} {each.replace('…', before)}")
    return "\n".join([*lines, f"fields: *a{count - 1}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (levels("{x: string, y: string}", "{<<: […]}"), "more than 10000 values"),
        (levels("[x]", "[…]"), "more than 10000 values"),
        ("[" * 50_000, "inside one another"),
        ("fields: {a: 1" + ":59" * 20_000 + "}", "a word of more than 256 characters"),
        ("fields: {a: !!int '" + "1" * 60_000 + "'}", "a word of more than 256 characters"),
        ("fields: {a: !!timestamp soon}", "is no YAML"),
        ("fields: {a: !!bool perhaps}", "is no YAML"),
        ("fields: !!python/object/apply:os.abort []", "could not determine a constructor"),
        ('fields: {"a\\0": string}', "NUL"),
        ("fields: &a {b: {type: object, fields: *a}}", "nested more than 16 deep"),
    ],
    ids=[
        "merges",
        "aliases",
        "depth",
        "sexagesimal",
        "digits",
        "timestamp",
        "boolean",
        "python",
        "nul",
        "a circle",
    ],
)
def test_a_text_that_stands_for_too_much_is_no_schema(text: str, said: str) -> None:
    """Before anything is made of it: the first one would need more memory than there is."""
    with pytest.raises(SchemaError) as raised:
        read_schema("verdict", text)

    assert said in str(raised.value)


def test_an_alias_within_reason_stands_for_what_it_names() -> None:
    """Also by a merge, as people write it."""
    schema = read_schema(
        "verdict",
        """
        fields:
          summary: &text {type: string, desc: in one line}
          advice?: *text
          title: {<<: *text, examples: [one]}
        """,
    )

    assert [(field.name, field.description) for field in schema.fields] == [
        ("summary", "in one line"),
        ("advice", "in one line"),
        ("title", "in one line"),
    ]


def test_a_long_description_is_no_word() -> None:
    """Only what may be a number is held to the length of one."""
    schema = read_schema("verdict", f"fields: {{a: {{type: string, desc: {'so and ' * 100}on}}}}")

    assert len(schema.fields[0].description or "") == 702
