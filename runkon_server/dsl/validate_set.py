"""Workflows that belong together, judged together: they may call each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.check import World
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.source import NOWHERE
from runkon_server.dsl.validate import judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.parser import ParseResult
    from runkon_server.dsl.validate import Report

_SUFFIX: Final = ".wf"


def validate_set(
    results: Mapping[str, ParseResult], world: World | None = None, *, is_strict: bool = False
) -> dict[str, Report]:
    """The judgement on each text of a set.

    A workflow is called by the name that it declares; if two declare the same, by the first. About
    one that cannot be read nothing is concluded at its callers.

    Args:
        results: what was read, by label; the label of a file is its path. Snapshots may be among
            them.
        world: what is known about where they will run; its loader is asked for all others.
        is_strict: take warnings for errors.
    """
    world = world or World()
    members: dict[str, Definition] = {}
    first: dict[str, str] = {}
    unreadable: set[str] = set()
    for label, result in results.items():
        if result.definition is not None:
            members.setdefault(result.definition.name, result.definition)
            first.setdefault(result.definition.name, label)
        else:
            unreadable.update(_possible_names(label, result))

    def load(name: str) -> Definition | str | None:
        if name in members:
            return members[name]
        if name in unreadable or world.load is None:
            return None
        return world.load(name)

    inner = replace(world, load=load, members=frozenset({*world.members, *members}))
    return {
        label: judge(result, inner, is_strict=is_strict, further=_about_names(label, result, first))
        for label, result in results.items()
    }


def _possible_names(label: str, result: ParseResult) -> Iterator[str]:
    if result.sketch is not None:
        yield result.sketch.name
    yield _stem(label)


def _stem(label: str) -> str:
    return label.rpartition("/")[2].removesuffix(_SUFFIX)


def _about_names(label: str, result: ParseResult, first: Mapping[str, str]) -> Iterator[Diagnostic]:
    definition = result.definition
    if definition is None or definition.span == NOWHERE:  # a snapshot is a copy, of any name
        return
    name, stem = definition.name, _stem(label)
    if first[name] != label:
        yield diagnostic(
            codes.NAME_TWICE,
            definition.span,
            f"`{name}` is declared in {first[name]} already",
            hint="workflows are called and stored by their names: give one of them another",
        )
    elif label.endswith(_SUFFIX) and stem != name:
        yield diagnostic(
            codes.FILE_NAME,
            definition.span,
            f"the workflow in this file is called `{name}`, not `{stem}`",
            hint=f"rename the file to `{name}{_SUFFIX}`, or the workflow to `{stem}`",
        )
