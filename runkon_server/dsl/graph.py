"""A workflow, or a run of it, as a picture."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from runkon_server.dsl.graphing.document import document
from runkon_server.dsl.graphing.dot import dot
from runkon_server.dsl.graphing.flow import flatten
from runkon_server.dsl.graphing.mermaid import mermaid
from runkon_server.dsl.graphing.regions import chart
from runkon_server.dsl.graphing.svg import svg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.dsl.ast import Definition


class GraphFormat(StrEnum):
    """What a picture is written in."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"
    SVG = "svg"


def graph(
    definition: Definition, graph_format: GraphFormat, *, statuses: Mapping[str, str] | None = None
) -> str:
    """The picture of a definition, as text that ends in a line break.

    Args:
        definition: to be drawn.
        graph_format: to be written.
        statuses: to draw a run: the status of the newest row of each step, such as `completed`,
            by the step's path, such as `body.3.1`. Paths that do not exist are ignored.
    """
    regions = chart(definition, statuses)
    match graph_format:
        case GraphFormat.MERMAID:
            return mermaid(flatten(regions))
        case GraphFormat.DOT:
            return dot(flatten(regions))
        case GraphFormat.JSON:
            return document(flatten(regions))
        case GraphFormat.SVG:
            return svg(regions)
