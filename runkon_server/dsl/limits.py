"""How large a workflow and its parts may be.

Each is well above what real workflows use, and low enough that no definition can exhaust a replica.
"""

from __future__ import annotations

from typing import Final

SOURCE_BYTES: Final = 256 * 1024
DEPTH: Final = 24
"""Blocks inside one another; a polyglot client can still decode the tree as nested messages."""
NODES: Final = 2_000
ENTRIES: Final = 1_000
"""Elements of a list, entries of a map, options of a block, inputs of a workflow."""
NAME_LENGTH: Final = 128
STRING_BYTES: Final = 64 * 1024
ITERATIONS: Final = 1_000
RETRIES: Final = 20
STEP_TIMEOUT_MS: Final = 24 * 3_600_000
RETRY_DELAY_MS: Final = 5 * 60_000
"""Delays grow up to this, so a longer first one could not be kept."""
GATE_TIMEOUT_MS: Final = 90 * 24 * 3_600_000
MAX_PARALLEL: Final = 256
CALL_DEPTH: Final = 5
"""Workflows below the one that was started; `foreach` counts like `call workflow`."""
EXPANDED_BYTES: Final = 1024 * 1024
U32_MAX: Final = 2**32 - 1
PROBLEMS: Final = 100
"""Errors reported for one text before reading stops, and warnings shown."""
