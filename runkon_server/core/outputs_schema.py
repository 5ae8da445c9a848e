"""Output schemas: what a step's structured output has to look like, as values.

The text of a schema is YAML; whoever stores it parses that with a safe loader and hands the plain
document to `schema_of`, so that a schema is refused when it is stored and never at run time.
Source: dsl.md §4.12 of the language's specification.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from runkon_server.dsl import limits

Scalar: TypeAlias = Literal["string", "number", "boolean"]

FIELDS_MAX: Final = 500
"""Fields of a schema, nested ones included."""
DEPTH_MAX: Final = 16
_SCALARS: Final[dict[str, Scalar]] = {
    "string": "string", "number": "number", "boolean": "boolean",
}  # fmt: skip
_ENUM: Final = re.compile(r"enum\(([^()]*)\)")


class SchemaError(ValueError):
    """A document is no schema; the message says where and why."""


@dataclass(frozen=True, slots=True)
class ScalarType:
    """Text, a number or a truth value."""

    name: Scalar


@dataclass(frozen=True, slots=True)
class EnumType:
    """One of a few texts."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArrayType:
    """A list of scalars, of objects, or of anything (None)."""

    items: ScalarType | EnumType | ObjectType | None


@dataclass(frozen=True, slots=True)
class ObjectType:
    """An object; one without declared fields may hold anything."""

    fields: tuple[Field, ...]


FieldType: TypeAlias = ScalarType | EnumType | ArrayType | ObjectType


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an object."""

    name: str
    required: bool
    type: FieldType
    description: str | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A whole schema."""

    name: str
    fields: tuple[Field, ...]
    markers: tuple[tuple[str, str], ...] | None = None
    """Pairs of marker and expression; None: the default rules apply."""


class _Reader:
    """Reads one document; counts fields, so that no schema can exhaust a replica."""

    def __init__(self) -> None:
        self._fields = 0

    def fields(self, document: object, where: str, depth: int = 0) -> tuple[Field, ...]:
        if depth > DEPTH_MAX:
            raise SchemaError(f"{where}: nested more than {DEPTH_MAX} deep")
        if not isinstance(document, dict):
            raise SchemaError(f"{where}: a map of fields is wanted")
        self._fields += len(document)
        if self._fields > FIELDS_MAX:
            raise SchemaError(f"more than {FIELDS_MAX} fields")
        fields = tuple(self._field(key, value, where, depth) for key, value in document.items())
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            raise SchemaError(f"{where}: a field is declared as required and as optional")
        return fields

    def _field(self, key: object, value: object, where: str, depth: int) -> Field:
        if not isinstance(key, str) or not key.removesuffix("?"):
            raise SchemaError(f"{where}: {key!r} is no name of a field")
        name = key.removesuffix("?")
        if len(name) > limits.NAME_LENGTH:
            raise SchemaError(f"{where}: a name has more than {limits.NAME_LENGTH} characters")
        where = f"{where}.{name}"
        settings = value if isinstance(value, dict) else {"type": value}
        unknown = settings.keys() - {"type", "desc", "examples", "items", "fields"}
        if unknown:
            raise SchemaError(f"{where}: unknown key `{min(map(str, unknown))}`")
        description = settings.get("desc")
        return Field(
            name=name,
            required=name == key,
            type=self._type(settings, where, depth),
            description=None if description is None else str(description),
            examples=_texts(settings.get("examples", ())),
        )

    def _type(self, settings: dict[str, object], where: str, depth: int) -> FieldType:
        word = settings.get("type")
        if not isinstance(word, str):
            raise SchemaError(f"{where}: a type is wanted, one word")
        word = word.strip()
        match word:
            case "array":
                return ArrayType(self._items(settings.get("items"), where, depth))
            case "object":
                inner = settings.get("fields")
                return ObjectType(() if inner is None else self.fields(inner, where, depth + 1))
            case _:
                return _simple(word, where)

    def _items(
        self, items: object, where: str, depth: int
    ) -> ScalarType | EnumType | ObjectType | None:
        if items is None:
            return None
        if isinstance(items, str):
            return ObjectType(()) if items == "object" else _simple(items, f"{where}.items")
        return ObjectType(self.fields(items, f"{where}.items", depth + 1))


def schema_of(name: str, document: object) -> Schema:
    """A schema from its parsed text.

    Args:
        name: what `output` calls it.
        document: plain maps, lists, texts, numbers, in the order of the text.

    Raises:
        SchemaError: it is none.
    """
    if not isinstance(document, dict) or "fields" not in document:
        raise SchemaError("a map with the key `fields` is wanted")
    unknown = document.keys() - {"fields", "markers"}
    if unknown:
        raise SchemaError(f"unknown key `{min(map(str, unknown))}`")
    fields = _Reader().fields(document["fields"], "fields")
    return Schema(name=name, fields=fields, markers=_markers(document.get("markers")))


def _markers(rules: object) -> tuple[tuple[str, str], ...] | None:
    if rules is None:
        return None
    if not isinstance(rules, dict):
        raise SchemaError("markers: a map of markers and expressions is wanted")
    for marker, expression in rules.items():
        if not isinstance(marker, str) or not 0 < len(marker) <= limits.NAME_LENGTH:
            raise SchemaError(f"markers: {marker!r} is no marker")
        if not isinstance(expression, str):
            raise SchemaError(f"markers.{marker}: an expression is wanted, as text")
    return tuple(rules.items())


def _simple(word: str, where: str) -> ScalarType | EnumType:
    scalar = _SCALARS.get(word)
    if scalar is not None:
        return ScalarType(scalar)
    enum = _ENUM.fullmatch(word)
    if enum is None:
        raise SchemaError(f"{where}: `{word}` is no type")
    values = tuple(value.strip() for value in enum[1].split(","))
    if not all(values):
        raise SchemaError(f"{where}: `{word}` has an empty value")
    return EnumType(values)


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        values = [values]
    return tuple(str(value) for value in values)
