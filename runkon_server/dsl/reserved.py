"""Names of variables that the engine sets itself."""

from __future__ import annotations

from typing import Final

ENGINE_VARIABLES: Final = frozenset(
    {
        "workflow_run_id",
        "prior_context",
        "prior_contexts",
        "prior_output",
        "prior_output_file",
        "gate_feedback",
        "dry_run",
        "workflow_status",
        "failed_step",
        "failure_reason",
        "retry_count",
    }
)
"""An input of such a name is never seen, and no step may export one."""
