"""Charts as JSON, for those who draw them themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runkon_server.dsl.graphing.flow import Flow


def document(flow: Flow) -> str:
    """The chart as one JSON object: `nodes`, `edges` and `frames`, in program order."""
    value = {
        "name": flow.name,
        "title": flow.title,
        "nodes": [
            {
                "id": node.id,
                "kind": node.kind,
                "label": node.label,
                "details": node.details,
                "frame": node.frame,
                "status": node.status,
            }
            for node in flow.nodes
        ],
        "edges": [
            {"from": edge.source, "to": edge.target, "label": edge.label, "back": edge.is_back}
            for edge in flow.edges
        ],
        "frames": [
            {"id": frame.id, "label": frame.label, "frame": frame.frame} for frame in flow.frames
        ],
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
