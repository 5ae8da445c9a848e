"""Output schemas from their YAML texts.

Source: YAML 1.1 by PyYAML's safe loader, which makes plain values only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import yaml

from runkon_server.core.outputs_schema import Schema, SchemaError, schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise SchemaError(f"{place}{error.problem or 'is no YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SchemaError(f"is no YAML: {error}") from None
    return schema_of(name, document)


def stored_schemas(texts: Mapping[str, str]) -> dict[str, Schema]:
    """The schemas of a stored definition; one that cannot be used counts as not stored."""
    schemas: dict[str, Schema] = {}
    for name, text in texts.items():
        try:
            schemas[name] = read_schema(name, text)
        except SchemaError as error:
            log.warning("schema.unusable", schema=name, error=str(error))
    return schemas
