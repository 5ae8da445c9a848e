"""Where the thing a word stands for is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runkon_server.dsl.editing.blocks import Role
from runkon_server.dsl.editing.explaining import steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.editing.blocks import Mention
    from runkon_server.dsl.editing.collection import Collection
    from runkon_server.dsl.editing.document import Document

_INPUTS = "inputs."


class Target(NamedTuple):
    """A word in a document."""

    document: Document
    mention: Mention


def define(document: Document, offset: int, collection: Collection) -> tuple[Target, ...]:
    """What the word at an offset stands for; several, if several steps answer to a name."""
    mention = document.structure.mention_at(offset)
    return () if mention is None else tuple(_targets(mention, document, collection))


def _targets(mention: Mention, document: Document, collection: Collection) -> Iterator[Target]:
    match mention.role:
        case Role.CHILD:
            held = collection.holder(mention.text)
            if held is not None and held[1].header is not None:
                yield Target(held[1], held[1].header)
        case Role.STEP:
            yield from _steps(mention.text, document, collection)
        case Role.MARKER | Role.FIELD:
            yield from _steps(mention.of, document, collection)
        case Role.CONDITION:
            yield from _input(mention.text, document)
            if mention.text not in document.inputs:
                yield from _steps(mention.text, document, collection)
        case Role.PLACEHOLDER:
            yield from _input(mention.text.removeprefix(_INPUTS), document)
        case Role.ENTRY:
            yield from _entry(mention, collection)
        case _:
            return


def _steps(key: str, document: Document, collection: Collection) -> Iterator[Target]:
    for step, where in steps_of(key, document, collection):
        yield Target(where, step.name)


def _input(name: str, document: Document) -> Iterator[Target]:
    declared = document.inputs.get(name)
    if declared is not None:
        yield Target(document, declared.name)


def _entry(mention: Mention, collection: Collection) -> Iterator[Target]:
    """The declaration of an input of another workflow that is given a value."""
    block = mention.block
    if block.of != "inputs" or block.parent is None or block.parent.child is None:
        return
    held = collection.holder(block.parent.child)
    if held is not None:
        yield from _input(mention.text, held[1])
