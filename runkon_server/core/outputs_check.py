"""Whether a structured output has the shape that its schema asks for.

Source: engine.md §5.3 of the language's specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core.outputs_schema import ArrayType, EnumType, ObjectType, ScalarType

if TYPE_CHECKING:
    from runkon_server.core.outputs_schema import Field, FieldType, Schema


def first_problem(schema: Schema, value: object) -> str | None:
    """What is wrong, with the field's name; None: nothing. Unknown fields are allowed."""
    if not isinstance(value, dict):
        return f"an object is wanted, not {_name(value)}"
    return _fields(schema.fields, value, "")


def _fields(fields: tuple[Field, ...], value: dict[str, object], where: str) -> str | None:
    for field in fields:
        path = f"{where}{field.name}"
        if field.name not in value:
            if field.required:
                return f"`{path}` is missing"
            continue
        problem = _value(field.type, value[field.name], path)
        if problem is not None:
            return problem
    return None


def _value(wanted: FieldType, value: object, path: str) -> str | None:
    match wanted:
        case ScalarType(name=name):
            return None if _is_scalar(name, value) else _wrong(path, f"a {name}", value)
        case EnumType(values=values):
            if isinstance(value, str) and value in values:
                return None
            return f"`{path}`: one of {', '.join(values)} is wanted"
        case ArrayType(items=items):
            if not isinstance(value, list):
                return _wrong(path, "an array", value)
            return None if items is None else _items(items, value, path)
        case ObjectType(fields=fields):
            if not isinstance(value, dict):
                return _wrong(path, "an object", value)
            return _fields(fields, value, f"{path}.")


def _items(items: FieldType, value: list[object], path: str) -> str | None:
    if isinstance(items, ObjectType) and not items.fields:
        return None
    for index, each in enumerate(value):
        problem = _value(items, each, f"{path}[{index}]")
        if problem is not None:
            return problem
    return None


def _is_scalar(name: str, value: object) -> bool:
    match name:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(path: str, wanted: str, value: object) -> str:
    return f"`{path}`: {wanted} is wanted, not {_name(value)}"


def _name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
