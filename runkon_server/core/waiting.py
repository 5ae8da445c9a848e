"""The run's own wait for a gate, of its own or of a child: status, `blocked_on` and events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core.rows import cut

if TYPE_CHECKING:
    from typing import Any

    from runkon_server.core.scratch import Scratch


def block(tx: Scratch, blocked_on: dict[str, Any]) -> None:
    """The run waits for this gate; one that is being cancelled says so instead."""
    if tx.state.cancel is not None:
        return
    tx.set_status("waiting")
    tx.run["blocked_on"] = blocked_on
    prompt = blocked_on.get("prompt")
    shown = {**blocked_on, "prompt": cut(prompt)} if prompt else blocked_on
    tx.event("run_waiting", {"blocked_on": shown})


def unblock(tx: Scratch) -> None:
    """The run waits for no gate any more. A cancel that is about to be applied says so itself."""
    if tx.state.status == "waiting" and not tx.is_halted:
        tx.set_status("running")
        tx.run["blocked_on"] = None
        tx.event("run_unblocked", {})
