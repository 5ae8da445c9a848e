"""All that there is to say about a text, in one call: for every surface the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkon_server.dsl.check import World, check
from runkon_server.dsl.checking.sketches import check_sketch
from runkon_server.dsl.codes import Group, Severity
from runkon_server.dsl.diagnostics import first_problems, has_errors, in_order, strict
from runkon_server.dsl.parser import parse
from runkon_server.dsl.strings import FIRST_EDITION
from runkon_server.dsl.unsupported import refuse_unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.parser import ParseResult
    from runkon_server.dsl.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A text, judged."""

    definition: Definition | None
    """What can be run; None exactly when there is an error among the diagnostics."""
    parsed: Definition | None
    """What the text says, whether it can be run or not; None if it could not be read."""
    diagnostics: tuple[Diagnostic, ...]
    """Errors and warnings, from the top of the text to its end; at most `limits.PROBLEMS`."""
    source: Source

    @property
    def reason(self) -> Group | None:
        """Under which reason to refuse the text: that of its first error."""
        errors = (each.group for each in self.diagnostics if each.severity is Severity.ERROR)
        return next(errors, None)

    def render(self) -> str:
        """All diagnostics with their excerpts, one blank line between them."""
        return "\n\n".join(each.render(self.source) for each in self.diagnostics)


def validate(
    text: str,
    label: str,
    world: World | None = None,
    *,
    is_strict: bool = False,
    edition: int = FIRST_EDITION,
) -> Report:
    """Parse a workflow, check it, and refuse what this version of the server does not run.

    Args:
        text: the source, decoded.
        label: a path or another name for the source.
        world: what is known about where it will run; None: nothing.
        is_strict: take warnings for errors.
        edition: of the language, as for `parse`.
    """
    return judge(parse(text, label, edition=edition), world, is_strict=is_strict)


def judge(
    result: ParseResult,
    world: World | None = None,
    *,
    is_strict: bool = False,
    further: Iterable[Diagnostic] = (),
) -> Report:
    """The whole judgement on a text that was read. Arguments as for `validate`.

    A text with errors is checked as well, as far as it could be made out.

    Args:
        further: found by the caller.
    """
    world = world or World()
    if result.definition is not None:
        found = check(result.definition, world)
        found = (*found, *refuse_unsupported(result.definition))
    else:
        found = check_sketch(result, world)
    diagnostics = first_problems(in_order([*result.diagnostics, *found, *further]))
    if is_strict:
        diagnostics = strict(diagnostics)
    return Report(
        definition=None if has_errors(diagnostics) else result.definition,
        parsed=result.definition,
        diagnostics=diagnostics,
        source=result.source,
    )
