"""Reading the workflow itself: its head, `meta`, `inputs`, the outer `always`, and what trails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Definition, Trigger
from runkon_server.dsl.diagnostics import did_you_mean
from runkon_server.dsl.problems import StopReading
from runkon_server.dsl.reading.blocks import NODE_READERS, read_always_body, read_open_body
from runkon_server.dsl.reading.inputs import Inputs, read_inputs
from runkon_server.dsl.reading.option_blocks import read_pairs
from runkon_server.dsl.reading.options import Options
from runkon_server.dsl.tokens import EOF, NODE_KEYWORDS

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Node
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.reading.values import Pair
    from runkon_server.dsl.source import Span

_LANDMARKS: Final = NODE_KEYWORDS | {EOF}


class WorkflowReader:
    """Reads one file.

    `meta`, `inputs` and `always` may stand anywhere between the steps, and repeatedly: their
    contents add up.
    """

    def __init__(self, cursor: Cursor, label: str) -> None:
        self._cursor = cursor
        self._label = label
        self._meta: list[Pair] = []
        self._inputs = Inputs()
        self._always: list[Node] = []

    def read(self) -> Definition:
        """The definition, as far as it could be read.

        Raises:
            StopReading: the text does not start like a workflow, or has too many problems.
        """
        cursor = self._cursor
        start = cursor.start
        self._read_keyword()
        name = cursor.name("the workflow")
        span = cursor.span_from(start)
        body: tuple[Node, ...] = ()
        if cursor.open_block("`workflow`"):
            readers = {
                **NODE_READERS,
                "meta": self._read_meta,
                "inputs": self._read_inputs,
                "always": self._read_always,
            }
            options, body = read_open_body(cursor, "workflow", readers)
            options.check("workflow", span, unknown=codes.REFUSED_OPTION)
        self._read_trailing_text()
        return self._definition(name, body, span)

    def _read_keyword(self) -> None:
        cursor = self._cursor
        if cursor.accept("workflow"):
            return
        meant = did_you_mean(cursor.text, ["workflow"])
        cursor.expected("workflow", hint=meant or "a file holds one `workflow name { … }`")
        if meant is None:
            raise StopReading
        cursor.advance()

    def _read_meta(self, cursor: Cursor) -> None:
        cursor.advance()
        if cursor.open_block("`meta`"):
            self._meta.extend(read_pairs(cursor, "meta"))

    def _read_inputs(self, cursor: Cursor) -> None:
        cursor.advance()
        if cursor.open_block("`inputs`"):
            read_inputs(cursor, self._inputs)

    def _read_always(self, cursor: Cursor) -> None:
        start = cursor.start
        cursor.advance()
        self._always.extend(read_always_body(cursor, cursor.span_from(start)))

    def _read_trailing_text(self) -> None:
        """Report what follows the end of the workflow, once, and look for problems in it."""
        cursor = self._cursor
        if cursor.kind == EOF:
            return
        line, column = cursor.tokens.source.position(cursor.previous_end - 1)
        message = f"{cursor.found()} comes after the end of the workflow"
        hint = f"it ends with the `}}` at line {line}, column {column}"
        if cursor.kind == "workflow":
            hint = "a file holds one workflow"
        elif cursor.kind == "}":
            message, hint = "this `}` closes nothing", cursor.misindented_hint() or hint
        cursor.report(codes.TRAILING_TEXT, message, hint=hint)
        if cursor.kind not in _LANDMARKS:
            cursor.skip_to(_LANDMARKS)
        while cursor.kind != EOF:
            reader = NODE_READERS.get(cursor.kind)
            if reader is not None and cursor.starts_line():
                start = cursor.start
                reader(cursor)
                cursor.count_node(cursor.span_from(start))
            else:
                cursor.skip_to(_LANDMARKS)

    def _definition(self, name: str, body: tuple[Node, ...], span: Span) -> Definition:
        options = Options(self._meta, self._cursor.problems)
        options.check("meta", span)
        trigger = options.word("trigger", Trigger, default=Trigger.MANUAL)
        if trigger is not Trigger.MANUAL:
            message = f"nothing starts this workflow by itself: `{trigger}` is only stored"
            options.report(codes.TRIGGER_NEVER_FIRES, "trigger", message)
        return Definition(
            name=name,
            title=options.text("title"),
            description=options.text("description") or "",
            trigger=trigger,
            targets=options.texts("targets") or (),
            group=options.text("group"),
            inputs=tuple(self._inputs.declared),
            body=body,
            always=tuple(self._always),
            source_path=self._label,
            span=span,
        )
