"""Output schemas as values."""

from __future__ import annotations

import re

import pytest

from runkon_server.core.outputs_schema import (
    DEPTH_MAX,
    FIELDS_MAX,
    ArrayType,
    EnumType,
    Field,
    ObjectType,
    ScalarType,
    Schema,
    SchemaError,
    schema_of,
)


def test_every_kind_of_field_is_read() -> None:
    """Short and long form; the order is that of the text."""
    document = {
        "fields": {
            "title": "string",
            "score?": {"type": "number", "desc": "0 to 1", "examples": [0.5, 1]},
            "ok": "boolean",
            "level": "enum(low, high)",
            "tags": {"type": "array", "items": "string"},
            "anything": "array",
            "findings": {"type": "array", "items": {"severity": "enum(low)", "note?": "string"}},
            "extra": {"type": "object", "fields": {"n": "number"}},
            "free": "object",
        },
        "markers": {"hot": "level == high"},
    }
    text, number = ScalarType("string"), ScalarType("number")
    finding = (
        Field(name="severity", required=True, type=EnumType(("low",))),
        Field(name="note", required=False, type=text),
    )

    assert schema_of("s", document) == Schema(
        name="s",
        fields=(
            Field(name="title", required=True, type=text),
            Field(
                name="score",
                required=False,
                type=number,
                description="0 to 1",
                examples=("0.5", "1"),
            ),
            Field(name="ok", required=True, type=ScalarType("boolean")),
            Field(name="level", required=True, type=EnumType(("low", "high"))),
            Field(name="tags", required=True, type=ArrayType(text)),
            Field(name="anything", required=True, type=ArrayType(None)),
            Field(name="findings", required=True, type=ArrayType(ObjectType(finding))),
            Field(
                name="extra",
                required=True,
                type=ObjectType((Field(name="n", required=True, type=number),)),
            ),
            Field(name="free", required=True, type=ObjectType(())),
        ),
        markers=(("hot", "level == high"),),
    )


def _nested(depth: int) -> dict[str, object]:
    fields: dict[str, object] = {"x": "string"}
    for _ in range(depth):
        fields = {"x": {"type": "object", "fields": fields}}
    return {"fields": fields}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "the key `fields`"),
        ({"fields": ["a"]}, "a map of fields"),
        ({"fields": {}, "marker": {}}, "unknown key `marker`"),
        ({"fields": {"a": "text"}}, "fields.a: `text` is no type"),
        ({"fields": {"a": 1}}, "fields.a: a type is wanted"),
        ({"fields": {1: "string"}}, "1 is no name"),
        ({"fields": {"?": "string"}}, "is no name"),
        ({"fields": {"a": "string", "a?": "string"}}, "required and as optional"),
        ({"fields": {"a": {"type": "string", "tipe": 1}}}, "fields.a: unknown key `tipe`"),
        ({"fields": {"a": {"type": "array", "items": "enum(a,)"}}}, "fields.a.items"),
        ({"fields": {"a": "enum()"}}, "an empty value"),
        ({"fields": {}, "markers": ["a"]}, "markers: a map"),
        ({"fields": {}, "markers": {"": "a"}}, "is no marker"),
        ({"fields": {}, "markers": {"a": True}}, "markers.a: an expression"),
        ({"fields": {f"f{n}": "string" for n in range(FIELDS_MAX + 1)}}, "more than 500 fields"),
        ({"fields": {"n" * 200: "string"}}, "more than 128 characters"),
        (_nested(DEPTH_MAX + 1), "nested more than"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(document: object, message: str) -> None:
    """When it is stored, so that no run ever meets it."""
    with pytest.raises(SchemaError, match=re.escape(message)):
        schema_of("s", document)
