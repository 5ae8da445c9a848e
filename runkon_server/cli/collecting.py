"""Python's cycle collector, set up for a process whose loop must not stand still.

Nearly everything here is freed by its reference count. What the collector still costs is its walks,
and the longest of them stop the event loop for as long as it takes to look at every object there
is: modules, plans and protocol tables, of which none will ever be freed.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["spare_the_loop"]

NEW_OBJECTS: Final = 10_000
"""More objects made than freed before the young ones are looked at; Python's own is 700."""
YOUNG_WALKS: Final = 20
OLD_WALKS: Final = 20


def spare_the_loop() -> None:
    """Walk once, and from now on only over what is made from now on; call it when all is up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNG_WALKS, OLD_WALKS)
