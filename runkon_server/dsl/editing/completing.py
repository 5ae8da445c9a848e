"""What an editor offers at a place of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.describing import (
    GATE_TYPES,
    KEYWORDS,
    SCHEMA_MARKERS,
    VARIABLES,
    WORDS,
    describe_key,
    words_of,
)
from runkon_server.dsl.editing.blocks import FILE, Block, Role
from runkon_server.dsl.editing.explaining import explain_input, explain_step, explain_workflow
from runkon_server.dsl.editing.situations import (
    Wanted,
    keys_of,
    may_hold_steps,
    situation_at,
)
from runkon_server.dsl.editing.snippets import KEYWORD_SNIPPETS
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import INPUT_MODIFIERS, NODE_KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.editing.collection import Collection
    from runkon_server.dsl.editing.document import Document
    from runkon_server.dsl.editing.situations import Situation
    from runkon_server.dsl.keys import Key

_VAGUE: Final = frozenset(
    {Wanted.FILE, Wanted.STATEMENT, Wanted.MODIFIER, Wanted.LOOP_END, Wanted.WORKFLOW_NAME}
)
_IDENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""Steps with other names cannot stand in a condition."""
_DURATIONS: Final = ('"30s"', '"5m"', '"1h"')


class ItemKind(StrEnum):
    """What sort of thing is offered, for the picture beside it."""

    KEYWORD = "keyword"
    KEY = "key"
    STEP = "step"
    MARKER = "marker"
    WORKFLOW = "workflow"
    INPUT = "input"
    VARIABLE = "variable"
    WORD = "word"
    GATE_TYPE = "gate type"
    ACTION = "action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One thing to insert in place of the characters from `start` to `end`."""

    label: str
    kind: ItemKind
    start: int
    end: int
    insert: str
    """What is inserted as it is."""
    snippet: str | None = None
    """The same with tab stops, for editors that know them."""
    detail: str = ""
    """A few words to show beside the label."""
    text: str = ""
    """Markdown to show when one asks for more."""


def complete(
    document: Document, offset: int, collection: Collection, *, is_asked: bool = True
) -> tuple[Completion, ...]:
    """What could be typed at an offset, the likeliest first.

    Args:
        document: the text as it is.
        offset: in it.
        collection: the workflows that can be called, this one included.
        is_asked: whether somebody asked, rather than just typed a blank, a dot or a brace; only
            what is wanted there for certain is offered then.
    """
    mended = document.mended(offset)
    situation = situation_at(mended, offset)
    if not is_asked and situation.wanted in _VAGUE:
        return ()
    return tuple(_Offers(document, mended, collection, offset, situation).all())


class _Offers:
    def __init__(
        self,
        original: Document,
        mended: Document,
        collection: Collection,
        offset: int,
        situation: Situation,
    ) -> None:
        self._original = original
        self._document = mended
        self._collection = collection
        self._situation = situation
        self._block = situation.block
        self._offset = offset

    def all(self) -> Iterator[Completion]:
        match self._situation.wanted:
            case Wanted.NOTHING:
                return
            case Wanted.FILE:
                yield self._keyword("workflow")
            case Wanted.WORKFLOW_NAME:
                stem = self._document.label.rpartition("/")[2].removesuffix(".wf")
                if stem:
                    yield self._item(stem, ItemKind.WORKFLOW, detail="the name of the file")
            case Wanted.STATEMENT:
                yield from self._keys()
                yield from self._steps_and_blocks()
            case Wanted.MODIFIER:
                yield from (self._keyword(word) for word in sorted(INPUT_MODIFIERS))
            case Wanted.AGENT:
                yield from self._agents()
                if self._block.construct != "parallel":
                    yield self._keyword("workflow")
            case Wanted.CHILD:
                yield from self._workflows()
            case Wanted.CONDITION:
                yield from self._steps()
                yield from self._boolean_inputs()
            case Wanted.STEP:
                yield from self._steps()
            case Wanted.MARKER:
                yield from self._markers()
            case Wanted.GATE_TYPE:
                yield from self._gate_types()
            case Wanted.VALUE:
                yield from self._values()
            case Wanted.ENTRY:
                yield from self._entries()
            case Wanted.PLACEHOLDER:
                yield from self._variables()
            case Wanted.LOOP_END:
                yield self._keyword("while")
                offers = self._steps_and_blocks()
                yield from (each for each in offers if each.label != "while")

    def _item(
        self,
        label: str,
        kind: ItemKind,
        *,
        insert: str | None = None,
        snippet: str | None = None,
        detail: str = "",
        text: str = "",
    ) -> Completion:
        return Completion(
            label=label,
            kind=kind,
            start=self._situation.start,
            end=self._offset,
            insert=label if insert is None else insert,
            snippet=snippet,
            detail=detail,
            text=text,
        )

    # Statements

    def _keyword(self, word: str) -> Completion:
        snippet = KEYWORD_SNIPPETS.get((self._situation.wanted, word), KEYWORD_SNIPPETS.get(word))
        return self._item(word, ItemKind.KEYWORD, snippet=snippet, text=KEYWORDS[word])

    def _steps_and_blocks(self) -> Iterator[Completion]:
        block = self._block
        if block.construct == "parallel":
            yield self._keyword("call")
        elif may_hold_steps(block):
            yield from (self._keyword(word) for word in sorted(NODE_KEYWORDS))
            if block.construct == "workflow":
                yield self._keyword("inputs")
                yield self._keyword("meta")

    def _keys(self) -> Iterator[Completion]:
        """The options that the block lacks; there are none once its steps have begun."""
        if self._steps_have_begun():
            return
        present = {mention.text for mention in self._block.keys}
        rows = keys_of(self._block)
        missing = [name for name in rows if name not in present]
        for name in sorted(missing, key=lambda each: not _row(rows[each]).required):
            key = _row(rows[name])
            yield self._item(
                name,
                ItemKind.KEY,
                insert=f"{name} = ",
                snippet=f"{name} = {_hole(key)}",
                detail=_detail(key),
                text=describe_key(*rows[name]) or "",
            )

    def _steps_have_begun(self) -> bool:
        return any(
            child.start < self._situation.start and child.construct != "map"
            for child in self._block.children
        )

    # References

    def _agents(self) -> Iterator[Completion]:
        for name in self._collection.agents(besides=(self._original, self._offset)):
            yield self._item(name, ItemKind.ACTION, detail="action")

    def _workflows(self) -> Iterator[Completion]:
        for name in self._collection.names():
            held = self._collection.holder(name)
            if held is not None and name != self._document.name:
                yield self._item(
                    name, ItemKind.WORKFLOW, detail="workflow", text=explain_workflow(held[1])
                )

    def _steps(self) -> Iterator[Completion]:
        """The steps a condition can look at, those before the cursor first, each once."""
        here, parallel = self._offset, None
        if self._block.construct == "parallel call":
            parallel = self._block.parent  # whose calls cannot look at each other
        found = sorted(self._document.steps, key=lambda step: step.name.start > here)
        kinds: dict[str, str] = {}
        for step in found:
            if step.block.parent is not parallel and _IDENT.fullmatch(step.key):
                kinds.setdefault(step.key, step.block.construct)
        for key, construct in kinds.items():
            text = explain_step(key, self._document, self._collection)
            yield self._item(key, ItemKind.STEP, detail=construct, text=text)

    def _boolean_inputs(self) -> Iterator[Completion]:
        for name, declared in self._document.inputs.items():
            if declared.is_boolean:
                text = explain_input(declared)
                yield self._item(name, ItemKind.INPUT, detail="boolean input", text=text)

    def _markers(self) -> Iterator[Completion]:
        """The markers that are asked of the step elsewhere, and those its output schema gives it.

        The schema is not at hand; it may declare others.
        """
        step = self._situation.of
        others = [document for _, document in self._collection if document is not self._original]
        found = {
            mention.text: None
            for document in (self._document, *others)
            for mention in document.structure.of_role(Role.MARKER)
            if mention.of == step
            and not (document is self._document and mention.start <= self._offset <= mention.end)
        }
        if any("output" in each.block.values for each in self._document.steps_by_key.get(step, ())):
            found.update(dict.fromkeys(SCHEMA_MARKERS))
        for marker in found:
            detail, text = f"marker of {step}", SCHEMA_MARKERS.get(marker, "")
            yield self._item(marker, ItemKind.MARKER, detail=detail, text=text)

    def _gate_types(self) -> Iterator[Completion]:
        for name, text in GATE_TYPES.items():
            yield self._item(name, ItemKind.GATE_TYPE, detail="gate", text=text)

    # Values

    def _values(self) -> Iterator[Completion]:
        block, name = self._block, self._situation.of
        row = keys_of(block).get(name)
        if row is None:
            yield from self._values_of_entry()
            return
        key = _row(row)
        for word in words_of(key):
            detail = "default" if word == key.default else ""
            text = WORDS.get((name, word), "")
            yield self._item(word, ItemKind.WORD, detail=detail, text=text)
        if name == "on_fail" and not words_of(key):
            text = WORDS[name, "continue"]
            yield self._item("continue", ItemKind.WORD, text=text)
            yield from self._agents()
        elif name == "workflow":
            yield from self._workflows()
        elif name in {"source", "if", "options"}:
            yield from self._steps()
        elif key.kind == "duration" and not self._situation.is_quoted:
            yield from (self._item(text, ItemKind.WORD) for text in _DURATIONS)

    def _values_of_entry(self) -> Iterator[Completion]:
        """What an input of another workflow may be, or the default of one declared here."""
        block, name = self._block, self._situation.of
        is_boolean = False
        if block.of == "inputs":
            child = self._child()
            is_boolean = child is not None and _is_boolean(child, name)
        elif block.construct == "inputs" and name == "default":
            declared = [each.text for each in block.keys if each.end <= self._offset]
            is_boolean = bool(declared) and _is_boolean(self._document, declared[-1])
        if is_boolean:
            yield self._item("true", ItemKind.WORD)
            yield self._item("false", ItemKind.WORD)

    def _child(self) -> Document | None:
        parent = self._block.parent
        held = self._collection.holder(parent.child) if parent and parent.child else None
        return None if held is None else held[1]

    def _entries(self) -> Iterator[Completion]:
        """The inputs of a called workflow that are not given yet."""
        child = self._child() if self._block.of == "inputs" else None
        if child is None:
            return
        present = {mention.text for mention in self._block.keys}
        for name, declared in child.inputs.items():
            if name not in present:
                text = explain_input(declared)
                yield self._item(
                    name, ItemKind.INPUT, insert=f"{name} = ", detail="input", text=text
                )

    def _variables(self) -> Iterator[Completion]:
        """What may stand between `{{` and `}}`."""
        closing = "" if self._is_closed() else " }}"
        for name, declared in self._document.inputs.items():
            text = explain_input(declared)
            yield self._item(name, ItemKind.INPUT, insert=name + closing, detail="input", text=text)
        if _is_in_foreach(self._block):
            text = "The item's id; a provider gives its items further fields."
            yield self._item("item.id", ItemKind.VARIABLE, insert=f"item.id{closing}", text=text)
        for name, text in VARIABLES.items():
            yield self._item(
                name, ItemKind.VARIABLE, insert=name + closing, detail="variable", text=text
            )

    def _is_closed(self) -> bool:
        text = self._document.text
        line_end = text.find("\n", self._offset)
        rest = text[self._offset : len(text) if line_end < 0 else line_end]
        closing, opening = rest.find("}}"), rest.find("{{")
        return closing >= 0 and (opening < 0 or closing < opening)


def _is_boolean(document: Document, name: str) -> bool:
    declared = document.inputs.get(name)
    return declared is not None and declared.is_boolean


def _row(row: tuple[str, str]) -> Key:
    construct, name = row
    return KEYS[construct][name]


def _detail(key: Key) -> str:
    if key.required:
        return f"{key.kind}, required"
    return key.kind if key.default is None else f"{key.kind}, default {key.default}"


def _hole(key: Key) -> str:
    """Where the value of an option is typed."""
    match key.kind:
        case "list":
            return "[$1]"
        case "map":
            return "{ $1 }"
        case "text" | "duration":
            return '"$1"'
        case _:
            return "$1"


def _is_in_foreach(block: Block) -> bool:
    while block.construct != FILE and block.parent is not None:
        if block.construct == "foreach":
            return True
        block = block.parent
    return False
