"""What a finished step leaves behind: markers, memory, metrics, or a failure of the section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core.metrics import add_metrics
from runkon_server.core.variables import absorb_results, remember

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from runkon_server.core.bubbling import ChildResults
    from runkon_server.core.model import Completion, Passes
    from runkon_server.core.scratch import Scratch


def succeed(tx: Scratch, key: str, passes: Passes, done: Completion) -> None:
    """A step completed: its result replaces the older one, its context is the newest."""
    state = tx.state
    leave_results(tx, key, done)
    iteration = passes[-1] if passes else 0
    state.memory = remember(state.memory, state.setup.reserved, key, iteration, done)


def leave_results(tx: Scratch, key: str, done: Completion) -> None:
    """Conditions, options and quality gates that name this key see the step from now on."""
    plan = tx.state.setup.plan
    if key in plan.watched:
        set_markers(tx, key, frozenset(done.markers))
    if key in plan.option_sources:
        _set_output(tx, key, done.structured_output or "")


def absorb(tx: Scratch, results: ChildResults) -> None:
    """A child run completed: later steps are told what its steps said."""
    state = tx.state
    state.memory = absorb_results(state.memory, state.setup.reserved, results)


def take_over(tx: Scratch, results: ChildResults) -> None:
    """A child run completed: the results of its steps replace those of the same keys here."""
    plan = tx.state.setup.plan
    for key, markers in results.markers_by_step.items():
        if key in plan.watched:
            set_markers(tx, key, frozenset(markers))
        if key in plan.option_sources:
            _set_output(tx, key, results.outputs_by_step.get(key, ""))


def forget(tx: Scratch, key: str) -> None:
    """A step did not complete: an older result of its key counts no more."""
    set_markers(tx, key, frozenset())
    if key in tx.state.setup.plan.option_sources:
        _set_output(tx, key, "")


def fail(tx: Scratch, error: str, culprits: Iterable[str] = ()) -> None:
    """The section has failed; whether it ends is decided by the walk.

    Args:
        tx: the decision.
        error: why, for people; the first one of the body becomes the run's error.
        culprits: ids of the steps whose failure it is: what a resume repeats.
    """
    state = tx.state
    state.ok = False
    if state.phase != "body":
        return
    if state.error is None:
        state.error = error
    for step_id in culprits:
        tx.update_step(step_id, {"fatal": True})


def abort(tx: Scratch, error: str, culprits: Iterable[str] = ()) -> None:
    """The section has failed and ends here, whatever `fail_fast` says."""
    fail(tx, error, culprits)
    tx.state.frame = None


def set_markers(tx: Scratch, key: str, markers: frozenset[str]) -> None:
    """Replace the markers of a key; none at all are not stored."""
    state = tx.state
    if state.results.get(key, frozenset()) == markers:
        return
    if not tx.is_restoring:  # what is being restored nobody else has seen
        state.results = dict(state.results)
    if markers:
        state.results[key] = markers
    else:
        del state.results[key]


def record_metrics(tx: Scratch, metrics: dict[str, Any] | None) -> None:
    """Add to the run's sums, which its row keeps."""
    if metrics is None:
        return
    tx.state.metrics = add_metrics(tx.state.metrics, metrics)
    tx.run["metrics"] = tx.state.metrics


def _set_output(tx: Scratch, key: str, output: str) -> None:
    state = tx.state
    if state.outputs.get(key) != output:
        state.outputs = {**state.outputs, key: output}
