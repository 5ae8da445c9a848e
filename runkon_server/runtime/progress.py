"""Progress that workers send with their heartbeats, as events; at most one per step in 5 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.runtime.entries import Entry
from runkon_server.store.locking import run_of
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import TaskHeartbeat
    from runkon_server.runtime.entries import Batch
    from runkon_server.store.locking import Wants

INTERVAL_S: Final = 5.0
REMEMBERED_MAX: Final = 10_000


class ProgressEntry(Entry):
    """Appends one StepProgress event, if the task is still out."""

    __slots__ = ("_payload", "_task_id", "_token")

    def __init__(self, beat: TaskHeartbeat, step_name: str, iteration: int) -> None:
        super().__init__(run_of(beat.task_id))
        self._task_id = beat.task_id
        self._token = beat.token
        step_id = beat.task_id.rpartition("#")[0]
        self._payload = to_json(
            {
                "step_id": step_id,
                "step_name": step_name,
                "iteration": iteration,
                "progress": beat.progress,
            }
        )

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        wants.tasks.add(self._task_id)

    def apply(self, batch: Batch) -> None:
        run = batch.locked.runs.get(self.run_id)
        task = batch.locked.tasks.get(self._task_id)
        if run is None or run.is_terminal or task is None:
            return
        if task.state == "leased" and task.token == self._token:
            batch.append_event(run, "step_progress", self._payload)


class ProgressFilter:
    """Lets one report per step and interval through; the newest one of a burst may be dropped."""

    def __init__(self, ambient: Ambient, submit: Callable[[Entry], None]) -> None:
        self._ambient = ambient
        self._submit = submit
        self._last_s: dict[str, float] = {}

    def take(self, beat: TaskHeartbeat, step_name: str, iteration: int) -> None:
        """Pass a heartbeat's progress on, or not; it was matched with its task before."""
        now_s = self._ambient.boottime_s()
        if now_s - self._last_s.get(beat.task_id, -INTERVAL_S) < INTERVAL_S:
            return
        if len(self._last_s) >= REMEMBERED_MAX:
            self._last_s.clear()
        self._last_s[beat.task_id] = now_s
        self._submit(ProgressEntry(beat, step_name, iteration))
