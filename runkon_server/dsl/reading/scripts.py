"""Reading `script` and `foreach`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import limits
from runkon_server.dsl.ast import ForEach, OnChildFail, OnCycle, Script
from runkon_server.dsl.reading.calls import retries, retry_delay
from runkon_server.dsl.reading.option_blocks import read_required_block

if TYPE_CHECKING:
    from runkon_server.dsl.reading.cursor import Cursor


def read_script(cursor: Cursor) -> Script:
    """Read `script NAME { … }`."""
    start = cursor.start
    cursor.advance()
    name = cursor.name("a script")
    span = cursor.span_from(start)
    options = read_required_block(cursor, "script")
    options.check("script", span)
    return Script(
        name=name,
        run=options.text("run") or "",
        env=options.pairs("env") or (),
        timeout_s=options.seconds("timeout", at_most_ms=limits.STEP_TIMEOUT_MS),
        retries=retries(options) or 0,
        on_fail=options.on_fail(),
        as_identity=options.text("as"),
        retry_delay=retry_delay(options),
        span=span,
    )


def read_foreach(cursor: Cursor) -> ForEach:
    """Read `foreach NAME { … }`."""
    start = cursor.start
    cursor.advance()
    name = cursor.name("a foreach")
    span = cursor.span_from(start)
    options = read_required_block(cursor, "foreach")
    options.check("foreach", span)
    max_parallel = options.number("max_parallel", at_most=limits.MAX_PARALLEL, positive=True)
    return ForEach(
        name=name,
        over=options.text("over") or "",
        scope=options.pairs("scope"),
        filter=options.pairs("filter") or (),
        ordered=options.flag("ordered", default=False),
        on_cycle=options.word("on_cycle", OnCycle, default=OnCycle.FAIL),
        max_parallel=max_parallel or 1,
        workflow=options.name("workflow") or "",
        inputs=options.pairs("inputs") or (),
        on_child_fail=options.word("on_child_fail", OnChildFail, default=OnChildFail.CONTINUE),
        span=span,
    )
