"""The kinds of events and what their payloads hold: the one list that store, API and client follow.

Payloads are plain JSON. `step` is the step's row after the change by its column names, null columns
left out, long texts cut at `TEXT_CUT_BYTES` (then `truncated` is true). Steps in events carry no
times: the runtime adds the `started_at` it knows; the event's own time is the change's time.
"""

from __future__ import annotations

from typing import Final

TEXT_CUT_BYTES: Final = 16 * 1024
ERROR_CUT_BYTES: Final = 4 * 1024

KINDS: Final[dict[str, str]] = {
    "run_started": "workflow_name, workflow_version, display_name, dry_run, trigger, started_by",
    "run_resumed": "workflow_name, mode, from_step_id, resumed_by",
    "run_waiting": "blocked_on",
    "run_unblocked": "",
    "run_cancel_requested": "reason, force, requested_by (appended by the recorder)",
    "run_finished": "status, error, result_summary, truncated",
    "step_started": "step, truncated",
    "step_retrying": "step (the new attempt's predecessor), truncated, attempt, delay_s",
    "step_completed": "step, truncated",
    "step_failed": "step, truncated",
    "step_skipped": "step, truncated",
    "step_timed_out": "step, truncated",
    "step_progress": "step_id, step_name, iteration, progress",
    "gate_waiting": "gate, step, truncated",
    "gate_voted": "gate_id, gate_name, vote, truncated (appended by the recorder)",
    "gate_resolved": "gate, step, truncated (appended by the recorder; by the core on a close)",
    "fan_out_items_collected": "step, truncated, count",
    "fan_out_item_started": "item, truncated",
    "fan_out_item_completed": "item, truncated, counts",
    "child_run_started": "step_id, child_run_id, workflow_name, fan_out_item_id",
    "child_run_finished": "step_id, child_run_id, status, error, fan_out_item_id",
    "metrics_updated": "metrics",
    "definition_warning": "diagnostic",
    "always_started": "workflow_status",
}
"""Kind → keys of its payload. Keys without a value are left out.

`blocked_on` is `{type, gate_id, gate_name, prompt, options}` with options as a list of
`{key, label}`; a gate of type `pr_approval` has `approvals_needed` beside, the gate of a child run
its `run_id`. `gate` has the columns of the gate's row, `item` those of `records.ItemRecord` but
its output, `counts` is `{total, completed, failed, skipped}`. The error of a child is cut at
`ERROR_CUT_BYTES`."""
