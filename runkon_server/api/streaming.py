"""Everything of a replica that streams events: put together here, started and stopped as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from runkon_server.api.feed import FeedHub, FeedSource
from runkon_server.api.feed_cursors import FeedCursors, Keeper
from runkon_server.api.gate_stream import GateStreams
from runkon_server.api.hub import EventSource, Hub
from runkon_server.api.identity import LocalIdentity
from runkon_server.api.namespace_stream import NamespaceStreams
from runkon_server.api.open_streams import OpenStreams
from runkon_server.api.streams import EventStreams, Replica

if TYPE_CHECKING:
    from runkon_server.runtime.ambient import Ambient

__all__ = ["Streaming", "StreamingEngine"]


class StreamingEngine(EventSource, FeedSource, Keeper, Replica, Protocol):
    """The part of the engine that streams need."""


class Streaming:
    """The streams of one replica.

    Args:
        engine: where events are read, and what tells of them.
        open_streams: who may have some, and for how long; by default whoever can connect.
    """

    def __init__(self, engine: StreamingEngine, open_streams: OpenStreams | None = None) -> None:
        cursors = FeedCursors(engine)
        self.hub = Hub(engine)
        self.feeds = FeedHub(engine, cursors)
        self.open_streams = open_streams or OpenStreams(LocalIdentity())
        self.runs = EventStreams(engine, self.hub)
        self.namespaces = NamespaceStreams(engine, self.feeds, cursors)
        self.gates = GateStreams(engine, self.feeds, cursors)

    @property
    def streams_open(self) -> int:
        """How many there are."""
        return self.hub.watches_open + self.feeds.watches_open

    @property
    def feed_lag_s(self) -> float:
        """For how long the oldest event of any feed is held back, as of the last look."""
        return self.feeds.lag_s

    async def follow(self, ambient: Ambient) -> None:
        """Do what streams wait for; never returns."""
        await asyncio.gather(
            self.hub.follow(ambient),
            self.feeds.follow(ambient),
            self.open_streams.follow(ambient),
        )
