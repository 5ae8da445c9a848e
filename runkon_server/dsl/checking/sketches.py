"""What is wrong with the meaning of a text that cannot be read as a whole.

Its errors must not be told twice, so two kinds of findings are left out: those about a step that
has an error itself, and, if a step may be missing from what could be made out, those that its
absence would explain. A step that the text names nowhere else is not among the missing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Parallel
from runkon_server.dsl.check import check
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.checking.world import World
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.parser import ParseResult

_INSIDE_OPTIONS: Final = frozenset(
    each.id
    for each in (
        codes.STRAY_COMMA,
        codes.MISSING_OPTION,
        codes.WRONG_SHAPE,
        codes.NOT_A_NUMBER,
        codes.UNKNOWN_WORD,
        codes.BAD_DURATION,
        codes.THRESHOLD_RANGE,
        codes.APPROVALS_WITH_REVIEW,
        codes.OPTIONS_ON_QUALITY_GATE,
        codes.BAD_OPTIONS_REFERENCE,
        codes.ZERO,
        codes.BAD_BOOLEAN,
        codes.REFUSED_OPTION,
        codes.NUMBER_TOO_LARGE,
        codes.STRING_TOO_LONG,
        codes.ABOVE_LIMIT,
    )
)
"""Errors that leave every step and every input in its place."""
_EXPLAINED_BY_ABSENCE: Final = frozenset(
    each.id
    for each in (
        codes.STEP_BEFORE_IF,
        codes.NOT_A_BOOLEAN_INPUT,
        codes.STEP_BEFORE_WHILE,
        codes.STEP_IN_DO_WHILE,
        codes.STEP_BEFORE_CALL,
        codes.STEP_BEFORE_GATE,
        codes.MISSING_INPUT,
        codes.MISSING_CHILD_INPUT,
        codes.MIN_SUCCESS_ABOVE_CALLS,
        codes.UNCHANGING_LOOP,
        codes.NEVER_REACHED,
        codes.UNKNOWN_PLACEHOLDER,
    )
)
_NAME: Final = re.compile(r"[\w-]+")
_STEP: Final = re.compile(r"(?<=/)[\w-]++|(?<![\w/-])[\w-]++(?!\s*+\.)")
_ONE_STEP: Final = r"(?<=/)%s(?![\w-])|(?<![\w/-])%s(?![\w-])(?!\s*+\.)"
"""A given step, where `_STEP` finds any."""
_ONE_BY_ONE_MAX: Final = 8
_ON_STEPS: Final = frozenset(
    each.id
    for each in (
        codes.STEP_BEFORE_IF,
        codes.STEP_BEFORE_WHILE,
        codes.STEP_IN_DO_WHILE,
        codes.STEP_BEFORE_CALL,
    )
)
"""Those about a condition, whose place is that of `step.marker`."""


def check_sketch(result: ParseResult, world: World) -> tuple[Diagnostic, ...]:
    """Findings about a text with errors that none of these errors explains."""
    if result.sketch is None:
        return ()
    errors = [each for each in result.diagnostics if each.severity is Severity.ERROR]
    heads = sorted(set(_heads(result.sketch)))
    broken = {bisect_right(heads, each.span.offset) for each in errors}
    text = result.source.text
    words = _Words(text)
    is_whole = all(each.code in _INSIDE_OPTIONS for each in errors)
    return tuple(
        each
        for each in check(result.sketch, world)
        if bisect_right(heads, each.span.offset) not in broken
        and (
            is_whole
            or each.code not in _EXPLAINED_BY_ABSENCE
            or (each.code in _ON_STEPS and words.lack(_step_at(each, text)))
        )
    )


def _step_at(found: Diagnostic, text: str) -> str:
    return text[found.span.offset : found.span.end].strip('"').partition(".")[0].rstrip()


class _Words:
    """The words of a text that can be steps: those that do not stand in conditions only."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._looked_for: dict[str, bool] = {}

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(_STEP.findall(self._text))

    def lack(self, step: str) -> bool:
        """Whether no step of that name can be in the text."""
        if not _NAME.fullmatch(step):
            return step not in self._text
        # Mostly one or two are asked for, and to find them is quicker than to list all there are.
        if step not in self._looked_for and len(self._looked_for) < _ONE_BY_ONE_MAX:
            one = _ONE_STEP % (re.escape(step), re.escape(step))
            self._looked_for[step] = re.search(one, self._text) is None
        found = self._looked_for.get(step)
        return step not in self._known if found is None else found


def _heads(definition: Definition) -> Iterator[int]:
    """Where each part begins to which a finding or an error may belong."""
    yield from (each.span.offset for each in definition.inputs)
    for node in all_nodes(definition):
        yield node.span.offset
        if isinstance(node, Parallel):
            yield from (call.span.offset for call in node.calls)
