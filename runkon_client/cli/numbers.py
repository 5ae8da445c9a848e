"""Numbers on the command line."""

from __future__ import annotations

import math
from typing import Any, Final

import click

_YEAR_S: Final = 31_536_000


class Seconds(click.FloatRange):
    """A time in seconds: `nan` lies within every range of click's own."""

    def __init__(self, least: float, most: float = _YEAR_S) -> None:
        super().__init__(least, most)

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - click's own
        """The number."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds
