"""Reading `parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Parallel, ParallelCall, StepMarker
from runkon_server.dsl.reading.calls import read_agent, retries, retry_delay
from runkon_server.dsl.reading.option_blocks import read_leading_options, read_optional_block
from runkon_server.dsl.reading.values import recover_pair
from runkon_server.dsl.tokens import EOF, NODE_KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.dsl.ast import Node
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.reading.options import Options


def read_parallel(cursor: Cursor, read_node: Callable[[Cursor], Node | None]) -> Parallel:
    """Read `parallel { options calls }`.

    Args:
        cursor: stands at the keyword.
        read_node: reads any node, to find the problems inside one that does not belong here.
    """
    start = cursor.start
    cursor.advance()
    span = cursor.span_from(start)
    if not cursor.open_block("`parallel`") or not cursor.enter_block():
        return Parallel(calls=(), span=span)
    opened_at = cursor.previous_end - 1
    options = read_leading_options(cursor)
    options.check("parallel", span)
    calls: list[ParallelCall] = []
    while not cursor.accept("}"):
        if cursor.kind == EOF:
            cursor.unclosed(opened_at, "`parallel`")
            break
        _read_branch(cursor, calls, read_node)
    cursor.leave_block()
    if not calls:
        message = "a parallel block needs at least one call"
        cursor.problems.report(codes.EMPTY_PARALLEL, span.offset, span.end, message)
    return Parallel(
        calls=tuple(calls),
        fail_fast=options.flag("fail_fast", default=True),
        min_success=options.number("min_success"),
        output=options.text("output"),
        with_=options.texts("with") or (),
        name=options.name("name"),
        span=span,
    )


def _read_branch(
    cursor: Cursor, calls: list[ParallelCall], read_node: Callable[[Cursor], Node | None]
) -> None:
    if cursor.at_pair():
        hint = "an option of one call stands in braces behind it"
        cursor.report(
            codes.OPTION_AFTER_STEP, "the options of a block come before its steps", hint=hint
        )
        read_leading_options(cursor)
    elif cursor.kind == "call" and cursor.peek() != "workflow":
        calls.append(_read_parallel_call(cursor))
    elif cursor.kind in NODE_KEYWORDS:
        _refuse_node(cursor)
        read_node(cursor)
    else:
        recover_pair(cursor)


def _refuse_node(cursor: Cursor) -> None:
    index = cursor.index + (1 if cursor.peek() == "workflow" else 0)
    cursor.problems.report(
        codes.MISPLACED_BLOCK,
        cursor.tokens.starts[index],
        cursor.tokens.end(index),
        "only calls of agents can run in parallel",
        hint="other steps come before or after the block",
    )


def _read_parallel_call(cursor: Cursor) -> ParallelCall:
    start = cursor.start
    cursor.advance()
    agent = read_agent(cursor)
    span = cursor.span_from(start)
    cursor.count_node(span)
    options = read_optional_block(cursor, "parallel call", span)
    return ParallelCall(
        agent=agent,
        output=options.text("output"),
        with_=options.texts("with"),
        retries=retries(options),
        condition=_condition(options),
        retry_delay=retry_delay(options),
        span=span,
    )


def _condition(options: Options) -> StepMarker | None:
    text = options.text("if")
    if text is None:
        return None
    step, dot, marker = text.partition(".")
    if not dot:
        message = "a parallel call can only depend on a step's marker: `if = step.marker`"
        options.report(codes.BAD_CONDITION, "if", message)
    return StepMarker(step=step, marker=marker, span=options.span("if"))
