"""The stored form of a definition: one JSON document, as the original engine writes it.

A run is pinned to such a document for life, so the format only ever grows. For a definition that
uses none of the newer options, `dump` gives the same fields in the same order as the original;
a newer field (`approvers`, `exclude_starter`, `name` of a parallel block, `retry_delay`,
`call_retry_delay`) appears, behind the others of its object, only when it is set to something
else than its default. A gate's own `name` goes where the original repeats the type.

`load` reads documents of older versions too: `bot_name` for `as_identity`, and gate options that
are a list. Where the original would silently drop a broken quality gate's settings, it refuses.
"""

from __future__ import annotations

from runkon_server.dsl.snapshots.dumping import dump
from runkon_server.dsl.snapshots.loading import load
from runkon_server.dsl.snapshots.records import SnapshotError

__all__ = ["SnapshotError", "dump", "load"]
