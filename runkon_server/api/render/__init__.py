"""Rows to messages. Total: whatever the store holds, also from a newer server, can be shown."""

from __future__ import annotations

from runkon_server.api.render.gates import render_gate, render_vote
from runkon_server.api.render.items import render_item
from runkon_server.api.render.runs import render_blocked_on, render_run
from runkon_server.api.render.steps import render_step
from runkon_server.api.render.workers import render_worker
from runkon_server.api.render.workflows import render_diagnostic, render_workflow

__all__ = [
    "render_blocked_on",
    "render_diagnostic",
    "render_gate",
    "render_item",
    "render_run",
    "render_step",
    "render_vote",
    "render_worker",
    "render_workflow",
]
