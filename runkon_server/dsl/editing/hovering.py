"""What an editor shows about the word under the pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runkon_server.dsl.describing import GATE_TYPES, KEYWORDS, VARIABLES, WORDS, describe_key
from runkon_server.dsl.editing.blocks import Role
from runkon_server.dsl.editing.explaining import (
    explain_input,
    explain_marker,
    explain_step,
    explain_workflow,
)
from runkon_server.dsl.editing.situations import keys_of
from runkon_server.dsl.keys import KEYS

if TYPE_CHECKING:
    from runkon_server.dsl.editing.blocks import Mention
    from runkon_server.dsl.editing.collection import Collection
    from runkon_server.dsl.editing.document import Document

_INPUTS = "inputs."


class Hover(NamedTuple):
    """Markdown about the characters from `start` to `end`."""

    text: str
    start: int
    end: int


def hover(document: Document, offset: int, collection: Collection) -> Hover | None:
    """What there is to say about the word at an offset; None if nothing."""
    mention = document.structure.mention_at(offset)
    if mention is None:
        return None
    text = _about(mention, document, collection)
    return None if text is None else Hover(text, mention.start, mention.end)


def _about(mention: Mention, document: Document, collection: Collection) -> str | None:
    word = mention.text
    match mention.role:
        case Role.KEYWORD | Role.MODIFIER:
            return f"**{word}**\n\n{KEYWORDS[word]}"
        case Role.KEY:
            return _about_key(mention)
        case Role.AGENT | Role.NAMED | Role.STEP:
            key = next((step.key for step in document.steps if step.name is mention), word)
            return explain_step(key, document, collection)
        case Role.MARKER:
            return explain_marker(word, mention.of, document, collection)
        case Role.CHILD | Role.WORKFLOW:
            held = collection.holder(word)
            return None if held is None else explain_workflow(held[1])
        case Role.GATE_TYPE:
            text = GATE_TYPES.get(word)
            return None if text is None else f"**gate {word}**\n\n{text}"
        case Role.INPUT | Role.CONDITION | Role.PLACEHOLDER:
            return _about_value(word, document)
        case Role.ENTRY:
            return _about_entry(mention, collection)
        case Role.WORD:
            return WORDS.get((mention.of, word))
        case Role.GATE_NAME | Role.FIELD:
            return None


def _about_key(mention: Mention) -> str | None:
    row = keys_of(mention.block).get(mention.text)
    if row is None:
        return None
    construct, name = row
    key = KEYS[construct][name]
    facts = [key.kind, "required"] if key.required else [key.kind]
    if key.default is not None:
        facts.append(f"default `{key.default}`")
    return f"**{name}** of `{construct}`: {', '.join(facts)}\n\n{describe_key(construct, name)}"


def _about_value(name: str, document: Document) -> str | None:
    declared = document.inputs.get(name.removeprefix(_INPUTS))
    if declared is not None:
        return explain_input(declared)
    text = VARIABLES.get(name)
    return None if text is None else f"Variable `{name}`\n\n{text}"


def _about_entry(mention: Mention, collection: Collection) -> str | None:
    """About the input of another workflow that is given a value."""
    block = mention.block
    if block.of != "inputs" or block.parent is None or block.parent.child is None:
        return None
    held = collection.holder(block.parent.child)
    declared = None if held is None else held[1].inputs.get(mention.text)
    return None if declared is None else explain_input(declared)
