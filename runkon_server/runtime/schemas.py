"""Output schemas from their YAML texts.

Source: YAML 1.1 by PyYAML's safe loader, which makes plain values only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import structlog
import yaml

from runkon_server.core.outputs_schema import Schema, SchemaError, schema_of
from runkon_server.core.variables import is_storable

if TYPE_CHECKING:
    from collections.abc import Mapping

VALUES_MAX: Final = 10_000
"""Scalars, lists and maps; a schema has at most 500 fields."""
DEPTH_MAX: Final = 100
WORD_MAX: Final = 256

_BLANK: Final = re.compile(r"\s")
# Twenty times as fast where PyYAML was built with libyaml, as its wheels are.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

log = structlog.get_logger(__name__)


def read_schema(name: str, text: str) -> Schema:
    """One schema.

    Args:
        name: what `output` calls it.
        text: YAML.

    Raises:
        SchemaError: it is none; the message says why.
    """
    try:
        _check_size(text)
        document = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except SchemaError:
        raise
    except yaml.MarkedYAMLError as error:
        place = "" if error.problem_mark is None else _place(error.problem_mark.line)
        raise SchemaError(f"{place}{error.problem or 'is no YAML'}") from None
    except Exception as error:  # noqa: BLE001 - an explicit tag makes constructors raise anything
        raise SchemaError(f"is no YAML: {error}") from None
    return schema_of(name, document)


def _check_size(text: str) -> None:
    """Look at the text before anything is made of it.

    An alias counts as all that it stands for: a few lines of them can stand for more than fits any
    memory. A plain word may be a number, which takes time with the square of its length.

    Raises:
        SchemaError: the text stands for too much, or holds what cannot be stored.
    """
    weights: dict[str, int] = {}
    around: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, _Loader):
        place = "" if event.start_mark is None else _place(event.start_mark.line)
        match event:
            case yaml.AliasEvent(anchor=str(anchor)):
                values += weights.get(anchor, 1)
            case yaml.ScalarEvent(value=value):
                values += 1
                if not is_storable(value):
                    raise SchemaError(f"{place}a NUL character or half of a surrogate pair")
                may_be_number = event.tag is not None or not event.style
                if may_be_number and len(value) > WORD_MAX and not _BLANK.search(value):
                    raise SchemaError(f"{place}a word of more than {WORD_MAX} characters")
            case yaml.CollectionStartEvent(anchor=anchor):
                around.append((anchor, values))
                values += 1
            case yaml.CollectionEndEvent():
                anchor, before = around.pop()
                if anchor is not None:
                    weights[anchor] = values - before
            case _:
                pass
        if values > VALUES_MAX or len(around) > DEPTH_MAX:
            raise SchemaError(
                f"{place}more than {VALUES_MAX} values, aliases counted as what"
                f" they stand for, or more than {DEPTH_MAX} of them inside one another"
            )


def _place(line: int) -> str:
    """For people, who count from 1."""
    return f"line {line + 1}: "


def stored_schemas(texts: Mapping[str, str]) -> dict[str, Schema]:
    """The schemas of a stored definition; one that cannot be used counts as not stored."""
    schemas: dict[str, Schema] = {}
    for name, text in texts.items():
        try:
            schemas[name] = read_schema(name, text)
        except SchemaError as error:
            log.warning("schema.unusable", schema=name, error=str(error))
    return schemas
