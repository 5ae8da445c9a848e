"""Whether conditions and quality gates look at steps that have run when they are reached.

The walk follows program order and is optimistic: what a branch or a loop may produce counts as
produced behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.ast import (
    Always,
    BoolInput,
    Call,
    CallWorkflow,
    Definition,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    InputType,
    Parallel,
    QualityGate,
    Script,
    StepMarker,
    Unless,
    While,
)
from runkon_server.dsl.diagnostics import diagnostic, nearest
from runkon_server.dsl.queries import all_nodes, step_key, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from runkon_server.dsl.ast import Node
    from runkon_server.dsl.checking.world import Library
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Span

_SUGGESTIONS: Final = 20


def check_steps(definition: Definition, library: Library) -> Iterator[Diagnostic]:
    """Check every condition, in program order.

    The steps of a workflow that cannot be looked at are unknown, so behind a call of one, any
    step may have run.
    """
    program = _Walk(definition, library)
    yield from program.nodes(definition.body)
    yield from program.nodes(definition.always)


def produced_keys(node: Node) -> tuple[str, ...]:
    """The step keys under which a node leaves results; a foreach answers to its bare name too."""
    match node:
        case Call() | Script() | CallWorkflow():
            return (step_key(node),)
        case ForEach():
            return (step_key(node), node.name)
        case Parallel():
            keys = tuple(step_key(call) for call in node.calls)
            return keys if node.name is None else (*keys, node.name)
        case _:
            return ()


class _Walk:
    def __init__(self, definition: Definition, library: Library) -> None:
        self._library = library
        self._produced: set[str] = set()
        self._anything_may_have_run = False
        self._inputs = {each.name: each.input_type for each in definition.inputs}
        self._line_of: dict[str, int] = {}
        for node in all_nodes(definition):
            for key in produced_keys(node):
                self._line_of.setdefault(key, node.span.line)
        self._gates = {
            node.name for node in all_nodes(definition) if isinstance(node, Gate | QualityGate)
        }
        self._suggestions_left = _SUGGESTIONS

    def nodes(self, nodes: Sequence[Node]) -> Iterator[Diagnostic]:
        for node in nodes:
            yield from self._node(node)

    def _node(self, node: Node) -> Iterator[Diagnostic]:
        match node:
            case If() | Unless():
                yield from self._condition(node.condition, codes.STEP_BEFORE_IF)
                yield from self.nodes(node.body)
            case While():
                yield from self._condition(node.condition, codes.STEP_BEFORE_WHILE)
                yield from self.nodes(node.body)
            case DoWhile():
                yield from self.nodes(node.body)
                yield from self._condition(node.condition, codes.STEP_IN_DO_WHILE)
            case Do() | Always():
                yield from self.nodes(node.body)
            case Parallel():
                beside = {step_key(call) for call in node.calls}
                for call in node.calls:
                    if call.condition is not None:
                        yield from self._step(
                            call.condition.step,
                            call.condition.span,
                            codes.STEP_BEFORE_CALL,
                            beside=beside,
                        )
            case QualityGate():
                yield from self._step(node.source, node.span, codes.STEP_BEFORE_GATE)
            case CallWorkflow():
                self._add_child(node.workflow)
            case Call() | Script() | ForEach() | Gate():
                pass
        self._produced.update(produced_keys(node))

    def _add_child(self, name: str) -> None:
        child = self._library.find(name)
        if not isinstance(child, Definition):
            self._anything_may_have_run = True
            return
        for node in walk(child.body):
            self._produced.update(produced_keys(node))

    def _condition(self, condition: StepMarker | BoolInput, code: Code) -> Iterator[Diagnostic]:
        if isinstance(condition, StepMarker):
            yield from self._step(condition.step, condition.span, code)
        else:
            yield from self._input(condition)

    def _step(
        self, step: str, span: Span, code: Code, *, beside: Collection[str] = ()
    ) -> Iterator[Diagnostic]:
        """Check what a condition looks at; `beside`: steps that start together with it."""
        if step in self._produced or self._anything_may_have_run:
            return
        message = f"no step `{step}` has run before this point"
        hint = self._hint(step)
        if step in beside:
            hint = f"the calls of a block start together: put `{step}` before the block"
        yield diagnostic(code, span, message, hint=hint)

    def _hint(self, step: str) -> str:
        if step in self._line_of:
            return f"`{step}` comes only later, on line {self._line_of[step]}"
        if step in self._gates:
            return "gates leave nothing that a condition could look at"
        near = self._nearest(step, self._produced)
        return f"put a step `{step}` before it" if near is None else f"did you mean `{near}`?"

    def _input(self, condition: BoolInput) -> Iterator[Diagnostic]:
        name = condition.name
        if self._inputs.get(name) is InputType.BOOLEAN:
            return
        message = f"`{name}` is not declared as a boolean input"
        if name in self._inputs:
            message = f"the input `{name}` is a text, not a boolean"
            hint = f"declare it as `{name} boolean`"
        elif name in self._produced:
            hint = f"`{name}` is a step: write `{name}.marker`"
        elif (near := self._nearest(name, self._inputs)) is not None:
            hint = f"did you mean `{near}`?"
        else:
            hint = f"write `inputs {{ {name} boolean }}`, or look at a step: `step.marker`"
        yield diagnostic(codes.NOT_A_BOOLEAN_INPUT, condition.span, message, hint=hint)

    def _nearest(self, word: str, candidates: Iterable[str]) -> str | None:
        """The candidate a word most likely stands for; only so often, because it costs time."""
        if self._suggestions_left == 0:
            return None
        self._suggestions_left -= 1
        return nearest(word, candidates)
