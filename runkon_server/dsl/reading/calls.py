"""Reading `call` and `call workflow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import limits
from runkon_server.dsl.ast import AgentKind, AgentRef, Call, CallWorkflow
from runkon_server.dsl.reading.agents import agent_ref
from runkon_server.dsl.reading.option_blocks import read_optional_block
from runkon_server.dsl.reading.values import Text
from runkon_server.dsl.strings import unquote
from runkon_server.dsl.tokens import AGENT_KINDS, EOF, IDENT, INT, KEYWORDS, STRING

if TYPE_CHECKING:
    from runkon_server.dsl.durations import Duration
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.reading.options import Options


def read_call(cursor: Cursor) -> Call | CallWorkflow:
    """Read `call AGENT [{ … }]` or `call workflow NAME [{ … }]`."""
    start = cursor.start
    cursor.advance()
    if cursor.accept("workflow"):
        return _read_call_workflow(cursor, start)
    agent = read_agent(cursor)
    span = cursor.span_from(start)
    options = read_optional_block(cursor, "call", span)
    if not options:
        return Call(agent=agent, span=span)
    return Call(
        agent=agent,
        retries=retries(options) or 0,
        on_fail=options.on_fail(),
        output=options.text("output"),
        with_=options.texts("with") or (),
        as_identity=options.text("as"),
        plugin_dirs=options.texts("plugin_dirs") or (),
        timeout=options.duration("timeout", at_most_ms=limits.STEP_TIMEOUT_MS),
        max_turns=options.number("max_turns"),
        retry_delay=retry_delay(options),
        span=span,
    )


def _read_call_workflow(cursor: Cursor, start: int) -> CallWorkflow:
    name = cursor.name("a workflow")
    span = cursor.span_from(start)
    options = read_optional_block(cursor, "call workflow", span)
    return CallWorkflow(
        workflow=name,
        inputs=options.pairs("inputs") or (),
        retries=retries(options) or 0,
        on_fail=options.on_fail(),
        as_identity=options.text("as"),
        retry_delay=retry_delay(options),
        span=span,
    )


def retries(options: Options) -> int | None:
    """The option `retries`."""
    return options.number("retries", at_most=limits.RETRIES)


def retry_delay(options: Options) -> Duration | None:
    """The option `retry_delay`."""
    return options.duration("retry_delay", at_most_ms=limits.RETRY_DELAY_MS)


def read_agent(cursor: Cursor) -> AgentRef:
    """Read what follows `call`: a name, or a quoted path."""
    kind, text, start, end = cursor.kind, cursor.text, cursor.start, cursor.end
    if kind not in AGENT_KINDS:
        _complain_about_agent(cursor)
        return AgentRef(kind=AgentKind.NAME, value="")
    if kind == STRING:
        text = unquote(text, start, cursor.problems, edition=cursor.edition)
    cursor.advance()
    if cursor.kind == ".":
        cursor.expected("{", hint="a path stands in quotes and has a `/` or ends in `.md`")
        while cursor.accept("."):
            cursor.advance()
    written = Text(text, start, end, quoted=kind == STRING)
    return agent_ref(written, cursor.problems, after_call=True)


def _complain_about_agent(cursor: Cursor) -> None:
    """Report a missing agent; a keyword or number in its place was meant to be its name."""
    what = "the name or path of an agent"
    if cursor.kind == INT:
        cursor.expected(what, hint="names start with a letter or `_`")
        end = cursor.end
        cursor.advance()
        if cursor.kind == IDENT and cursor.start == end:
            cursor.advance()
        return
    stands_alone = cursor.peek() in {"{", "}", EOF} or not cursor.same_line()
    if cursor.kind in KEYWORDS and stands_alone and not cursor.starts_line():
        cursor.expected(what, hint=f"`{cursor.kind}` is a keyword; no agent can have that name")
        cursor.advance()
    else:
        cursor.expected(what)
