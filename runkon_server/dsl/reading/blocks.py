"""Reading bodies and the blocks that have one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl import codes, limits
from runkon_server.dsl.ast import Always, Do, DoWhile, If, Policy, Unless, While
from runkon_server.dsl.reading.calls import read_call
from runkon_server.dsl.reading.conditions import read_condition, read_marker
from runkon_server.dsl.reading.gates import read_gate
from runkon_server.dsl.reading.option_blocks import read_leading_options
from runkon_server.dsl.reading.options import Options
from runkon_server.dsl.reading.parallel import read_parallel
from runkon_server.dsl.reading.recovery import recover_node
from runkon_server.dsl.reading.scripts import read_foreach, read_script
from runkon_server.dsl.tokens import EOF, IDENT, NAME_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from runkon_server.dsl.ast import Condition, Node
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.source import Span

    Readers: TypeAlias = Mapping[str, Callable[[Cursor], Node | None]]

_LOOP_KEYS: Final = ("max_iterations", "stuck_after", "on_max_iter")
_LOOP_HINT: Final = "a loop goes on with `while step.marker` behind the closing brace"


def read_body(cursor: Cursor, construct: str) -> tuple[Options, tuple[Node, ...]]:
    """Read `{ options nodes }`; nobody has looked at the options yet."""
    if not cursor.open_block(f"`{construct}`") or not cursor.enter_block():
        return Options((), cursor.problems), ()
    options, nodes = read_open_body(cursor, construct, NODE_READERS)
    cursor.leave_block()
    return options, nodes


def read_open_body(
    cursor: Cursor, construct: str, readers: Readers
) -> tuple[Options, tuple[Node, ...]]:
    """Read up to and over the `}` of a block whose `{` has been read."""
    opened_at = cursor.previous_end - 1
    options = read_leading_options(cursor)
    nodes: list[Node] = []
    while cursor.kind != "}":
        reader = readers.get(cursor.kind)
        if reader is not None and cursor.peek() != "=":
            node = reader(cursor)
            if node is not None:
                cursor.count_node(node.span)
                nodes.append(node)
        elif cursor.kind == EOF:
            cursor.unclosed(opened_at, f"`{construct}`")
            return options, tuple(nodes)
        else:
            recover_node(cursor, construct, readers, read_body)
    cursor.advance()
    return options, tuple(nodes)


def _read_if(cursor: Cursor) -> If:
    condition, body, span = _read_branching(cursor, "if")
    return If(condition=condition, body=body, span=span)


def _read_unless(cursor: Cursor) -> Unless:
    condition, body, span = _read_branching(cursor, "unless")
    return Unless(condition=condition, body=body, span=span)


def _read_branching(cursor: Cursor, construct: str) -> _Branching:
    start = cursor.start
    cursor.advance()
    condition = read_condition(cursor)
    span = cursor.span_from(start)
    options, body = read_body(cursor, construct)
    options.check(construct, span)
    return _Branching(condition, body, span)


def _read_while(cursor: Cursor) -> While:
    start = cursor.start
    cursor.advance()
    condition = read_marker(cursor)
    span = cursor.span_from(start)
    options, body = read_body(cursor, "while")
    options.check("while", span)
    limit, stuck_after, on_max_iter = _loop_options(options)
    return While(
        condition=condition,
        max_iterations=limit,
        stuck_after=stuck_after,
        on_max_iter=on_max_iter,
        body=body,
        span=span,
    )


def _read_do(cursor: Cursor) -> Do | DoWhile | None:
    start = cursor.start
    cursor.advance()
    span = cursor.span_from(start)
    if cursor.kind == IDENT:
        _read_old_loop(cursor)
        return None
    options, body = read_body(cursor, "do")
    if cursor.kind == "while":
        block_at = _block_behind_while(cursor)
        if block_at is None:
            return _finish_do_while(cursor, options, body, span)
        if any(key in options for key in _LOOP_KEYS):
            _report_ambiguity(cursor, block_at)
            return None
    return _plain_do(options, body, span)


def _plain_do(options: Options, body: tuple[Node, ...], span: Span) -> Do:
    is_meant_as_loop = any(key in options for key in _LOOP_KEYS)
    options.check(
        "do",
        span,
        unknown=codes.REFUSED_OPTION,
        hint=_LOOP_HINT if is_meant_as_loop else None,
    )
    return Do(
        output=options.text("output"), with_=options.texts("with") or (), body=body, span=span
    )


def _finish_do_while(
    cursor: Cursor, options: Options, body: tuple[Node, ...], span: Span
) -> DoWhile:
    cursor.advance()
    condition = read_marker(cursor)
    options.check("do … while", span)
    limit, stuck_after, on_max_iter = _loop_options(options)
    return DoWhile(
        condition=condition,
        max_iterations=limit,
        stuck_after=stuck_after,
        on_max_iter=on_max_iter,
        body=body,
        span=span,
    )


def _block_behind_while(cursor: Cursor) -> int | None:
    """How far ahead the `{` is, if the `while` here is followed by a block of its own."""
    if cursor.peek() not in NAME_KINDS:
        return None
    ahead = 2
    if cursor.peek(2) == "." and cursor.peek(3) in NAME_KINDS:
        ahead = 4
    return ahead if cursor.peek(ahead) == "{" else None


def _report_ambiguity(cursor: Cursor, block_at: int) -> None:
    cursor.problems.report(
        codes.AMBIGUOUS_WHILE,
        cursor.tokens.starts[cursor.index + block_at],
        cursor.tokens.end(cursor.index + block_at),
        "this `while` is the end of the `do` loop before it, so no block can follow",
        hint="to have two loops, end the first with its own `while step.marker`",
    )


def _read_old_loop(cursor: Cursor) -> None:
    """Read `do step.marker { … }`, the way loops were written once, as a problem."""
    cursor.report(
        codes.OLD_LOOP,
        "the condition of a `do` loop stands behind its block",
        hint="write `do { … } while step.marker`",
    )
    cursor.advance()
    while cursor.kind == "." or cursor.kind in NAME_KINDS:
        cursor.advance()
    read_body(cursor, "do")


def _loop_options(options: Options) -> _LoopOptions:
    limit = options.number("max_iterations", at_most=limits.ITERATIONS, positive=True)
    stuck_after = options.number("stuck_after", positive=True)
    if stuck_after == 1:
        options.report(
            codes.STUCK_AFTER_ONE,
            "stuck_after",
            "the loop would always fail after its first pass",
            hint="write 2 or more",
        )
    on_max_iter = options.word("on_max_iter", Policy, default=Policy.FAIL)
    return _LoopOptions(limit or 0, stuck_after, on_max_iter)


def _read_always(cursor: Cursor) -> Always:
    start = cursor.start
    cursor.advance()
    span = cursor.span_from(start)
    body = read_always_body(cursor, span)
    cursor.problems.report(
        codes.NESTED_ALWAYS,
        span.offset,
        span.end,
        "inside another block, `always` is an ordinary sequence: a failure before it skips it",
        hint="only `always` directly in the workflow runs in any case",
    )
    return Always(body=body, span=span)


def read_always_body(cursor: Cursor, span: Span) -> tuple[Node, ...]:
    """Read the block of an `always`, which takes no options."""
    options, body = read_body(cursor, "always")
    options.check("always", span, unknown=codes.REFUSED_OPTION)
    return body


def _read_parallel(cursor: Cursor) -> Node:
    return read_parallel(cursor, _read_any)


def _read_any(cursor: Cursor) -> Node | None:
    return NODE_READERS[cursor.kind](cursor)


class _Branching(NamedTuple):
    condition: Condition
    body: tuple[Node, ...]
    span: Span


class _LoopOptions(NamedTuple):
    max_iterations: int
    stuck_after: int | None
    on_max_iter: Policy


NODE_READERS: Final[Readers] = MappingProxyType(
    {
        "call": read_call,
        "if": _read_if,
        "unless": _read_unless,
        "while": _read_while,
        "do": _read_do,
        "parallel": _read_parallel,
        "gate": read_gate,
        "always": _read_always,
        "script": read_script,
        "foreach": read_foreach,
    }
)
"""Keyword → reader, for every kind of node."""
