"""The outline of a text: its workflow, inputs and steps, one inside the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import limits
from runkon_server.dsl.editing.blocks import DECLARATIONS, MAP, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.editing.blocks import Block
    from runkon_server.dsl.editing.document import Document

_NAMELESS: Final = frozenset({MAP, UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """One entry of an outline. Offsets: of the whole from `start` to `end`, of its name within."""

    name: str
    construct: str
    """A row of `keys.KEYS`, `inputs`, or `input`."""
    start: int
    end: int
    name_start: int
    name_end: int
    children: tuple[Symbol, ...] = ()


def outline(document: Document) -> tuple[Symbol, ...]:
    """The symbols of a text, in source order; what is nested too deeply is left out."""
    return tuple(_symbols(document, document.structure.root, 0))


def _symbols(document: Document, parent: Block, depth: int) -> Iterator[Symbol]:
    if depth > limits.DEPTH:
        return
    for block in parent.children:
        if block.construct in _NAMELESS:
            if block.construct == UNKNOWN:
                yield from _symbols(document, block, depth + 1)
            continue
        children = tuple(_symbols(document, block, depth + 1))
        if block.construct == DECLARATIONS:
            children = tuple(_inputs(block))
        name = " ".join(document.text[block.start : block.head_end].split())
        selected = block.name
        yield Symbol(
            name=name or block.construct,
            construct=block.construct,
            start=block.start,
            end=max(block.end, block.head_end),
            name_start=block.start if selected is None else selected.start,
            name_end=block.head_end if selected is None else selected.end,
            children=children,
        )


def _inputs(block: Block) -> Iterator[Symbol]:
    for mention in block.keys:
        yield Symbol(
            name=mention.text,
            construct="input",
            start=mention.start,
            end=mention.end,
            name_start=mention.start,
            name_end=mention.end,
        )
