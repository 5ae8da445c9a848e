"""Who listens to a replica: to its events, its drain, its takeover by another database server."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.runtime.commands import EventRecord

    EventListener: TypeAlias = Callable[[str, Sequence[EventRecord] | None], None]

log = structlog.get_logger(__name__)


class Occasion:
    """Something that happens now and then, and who wants to be called when it does."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def on(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each time from now on; gives the remover."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def happened(self) -> None:
        """Call everyone; one may remove itself meanwhile."""
        for listener in list(self._listeners):
            listener()


class Audience:
    """Everyone who is told what happens in a replica."""

    def __init__(self) -> None:
        self._event_listeners: list[EventListener] = []
        self.drain = Occasion()
        self.start_requests = Occasion()
        self.rewrite = Occasion()

    def on_events(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` with a run's id and its new events; gives the remover."""
        self._event_listeners.append(listener)
        return lambda: self._event_listeners.remove(listener)

    def tell(self, run_id: str, records: Sequence[EventRecord] | None) -> None:
        """The run has these new events; None: it may have some, written elsewhere."""
        for listener in list(self._event_listeners):
            try:
                listener(run_id, records)
            except Exception:
                # Who fails to hear of events must not end the loop that tells of them.
                log.exception("events.listener_failed", run_id=run_id)
