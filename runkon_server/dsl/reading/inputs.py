"""Reading the declarations of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Input, InputType
from runkon_server.dsl.reading.values import Text, read_value
from runkon_server.dsl.tokens import EOF, INPUT_MODIFIERS, NAME_KINDS, NODE_KEYWORDS

if TYPE_CHECKING:
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.source import Span

_TYPE_WORDS: Final = frozenset(
    {"string", "str", "text", "bool", "number", "int", "integer", "optional"}
)


class Inputs:
    """The declarations of a workflow so far; a name may be declared twice."""

    def __init__(self) -> None:
        self.declared: list[Input] = []
        self.first_of: dict[str, Input] = {}

    def add(self, declared: Input) -> None:
        """Note one more declaration."""
        self.declared.append(declared)
        self.first_of.setdefault(declared.name, declared)


def read_inputs(cursor: Cursor, inputs: Inputs) -> None:
    """Read declarations up to and over `}`, adding them to those of earlier blocks.

    The words `required boolean default description` belong to the declaration before them, so an
    input can have one of these names only at the start of a block.
    """
    opened_at = cursor.previous_end - 1
    is_first = True
    while not cursor.accept("}"):
        if cursor.kind == EOF:
            cursor.unclosed(opened_at, "`inputs`")
            return
        if _is_step(cursor) and cursor.assume_closed():
            cursor.expected("the name of an input", "}")
            return
        if cursor.kind in NAME_KINDS and (is_first or cursor.kind not in INPUT_MODIFIERS):
            _warn_about_name(cursor, inputs)
            inputs.add(_read_input(cursor))
            cursor.count_entry(len(inputs.declared), "inputs")
        else:
            _recover(cursor)
        is_first = False


def _is_step(cursor: Cursor) -> bool:
    """Whether a keyword looks like the start of a step rather than the name of an input."""
    if cursor.kind not in NODE_KEYWORDS or not cursor.starts_line():
        return False
    return cursor.same_line() and cursor.peek() not in INPUT_MODIFIERS | {"}"}


def _warn_about_name(cursor: Cursor, inputs: Inputs) -> None:
    name = cursor.text
    if not cursor.problems.wants_warnings:
        return
    if name in _TYPE_WORDS and inputs.declared and not cursor.starts_line():
        cursor.report(
            codes.TYPE_WORD_INPUT,
            f"this declares a second input, called `{name}`",
            hint="inputs are texts unless they are declared `boolean`",
        )
    first = inputs.first_of.get(name)
    if first is not None:
        message = f"`{name}` was declared on line {first.span.line} already"
        cursor.report(codes.DUPLICATE_INPUT, message)


@dataclass(slots=True)
class _Modifiers:
    required: Span | None = None
    is_boolean: bool = False
    default: Text | None = None
    description: Text | None = None


def _read_input(cursor: Cursor) -> Input:
    start = cursor.start
    name = cursor.text
    cursor.advance()
    span = cursor.span_from(start)
    modifiers = _read_modifiers(cursor)
    _check(cursor, modifiers)
    default, description = modifiers.default, modifiers.description
    return Input(
        name=name,
        required=not modifiers.is_boolean and (modifiers.required is not None or default is None),
        default=None if default is None else default.text,
        description=None if description is None else description.text,
        input_type=InputType.BOOLEAN if modifiers.is_boolean else InputType.STRING,
        span=span,
    )


def _read_modifiers(cursor: Cursor) -> _Modifiers:
    modifiers = _Modifiers()
    while cursor.kind in INPUT_MODIFIERS:
        kind, start = cursor.kind, cursor.start
        cursor.advance()
        if kind == "required":
            modifiers.required = cursor.span_from(start)
        elif kind == "boolean":
            modifiers.is_boolean = True
        elif kind == "default":
            modifiers.default = _read_modifier_value(cursor, kind)
        else:
            modifiers.description = _read_modifier_value(cursor, kind)
    return modifiers


def _read_modifier_value(cursor: Cursor, of: str) -> Text | None:
    if not cursor.accept("="):
        cursor.expected("=", hint=f'write `{of} = "…"`')
        if cursor.kind not in {"string", "number"}:
            return None
    value = read_value(cursor, of=of)
    if value is None or isinstance(value, Text):
        return value
    cursor.problems.report(
        codes.WRONG_SHAPE, value.start, value.end, f"`{of}` must be a text, not a list or map"
    )
    return None


def _check(cursor: Cursor, modifiers: _Modifiers) -> None:
    problems, required, default = cursor.problems, modifiers.required, modifiers.default
    if modifiers.is_boolean:
        if default is not None and default.text.lower() not in {"true", "false"}:
            message = "the default of a boolean input is `true` or `false`"
            problems.report(codes.BAD_BOOLEAN, default.start, default.end, message)
        if required is not None:
            problems.report(
                codes.REQUIRED_BOOLEAN,
                required.offset,
                required.end,
                "a boolean input that is not given is false, never missing",
            )
    elif required is not None and default is not None:
        problems.report(
            codes.REQUIRED_DEFAULT,
            default.start,
            default.end,
            "this default is never used, because the input is required",
            hint="leave out `required` to make the input optional",
        )


def _recover(cursor: Cursor) -> None:
    if cursor.kind == ",":
        cursor.report(codes.STRAY_COMMA, "no comma belongs between inputs")
        cursor.advance()
    elif cursor.kind == "=":
        cursor.expected("the name of an input", "}", hint='write `name default = "…"`')
        cursor.advance()
        read_value(cursor, of="default")
    else:
        cursor.expected("the name of an input", "}")
        cursor.skip()
