"""The inputs that a run starts with."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.ast import InputType
from runkon_server.errors import InputsInvalidError, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.dsl.ast import Definition, Input

__all__ = ["complete_inputs"]

NAMES_SHOWN: Final = 20
"""Of the declared inputs, beside one that is not declared."""
_BOOLEANS: Final = frozenset({"true", "false"})
_ITEM: Final = "item."


def complete_inputs(
    definition: Definition, given: Mapping[str, str], *, is_item: bool = False
) -> dict[str, str]:
    """What was given, with declared defaults filled in; a boolean that is missing is `false`.

    A required input has to be given even if it has a default.

    Args:
        definition: that declares them.
        given: by name.
        is_item: the run serves an item of a `foreach`, so `item.*` need not be declared.

    Raises:
        InputsInvalidError: one violation per input that is missing, not declared, or a boolean
            that is neither true nor false.
    """
    declared: dict[str, Input] = {}
    for each in definition.inputs:
        declared.setdefault(each.name, each)
    wrong = [
        _undeclared(name, declared)
        for name in given
        if name not in declared and not (is_item and name.startswith(_ITEM))
    ]
    inputs: dict[str, str] = dict(given)
    for name, each in declared.items():
        is_boolean = each.input_type is InputType.BOOLEAN
        if name not in given:
            if each.required:
                wrong.append(Violation(f"inputs.{name}", _missing(each)))
            elif each.default is not None:
                inputs[name] = each.default
            elif is_boolean:
                inputs[name] = "false"
        elif is_boolean and given[name].lower() not in _BOOLEANS:
            wrong.append(Violation(f"inputs.{name}", "is a boolean: give `true` or `false`"))
    if wrong:
        raise InputsInvalidError(wrong)
    return inputs


def _missing(declared: Input) -> str:
    about = f": {declared.description}" if declared.description else ""
    return f"is required by the workflow and was not given{about}"


def _undeclared(name: str, declared: Mapping[str, Input]) -> Violation:
    names = ", ".join(f"`{each}`" for each in islice(declared, NAMES_SHOWN))
    names += ", …" if len(declared) > NAMES_SHOWN else ""
    known = f"it declares {names}" if names else "it declares none"
    return Violation(f"inputs.{name}", f"is not declared by the workflow; {known}")
