"""The workflows of an editor's workspace, which call each other and are checked as one set."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from runkon_server.dsl.check import World
from runkon_server.dsl.editing.blocks import Role
from runkon_server.dsl.validate_set import validate_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.editing.document import Document


class Collection:
    """Documents by a key of the caller's choice, such as the address of a file."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._index: dict[str, list[str]] | None = None

    def put(self, key: str, document: Document) -> None:
        """Add or replace a document."""
        self._documents[key] = document
        self._index = None

    def remove(self, key: str) -> None:
        """Forget a document, if it is known."""
        self._documents.pop(key, None)
        self._index = None

    def get(self, key: str) -> Document | None:
        """The document of a key."""
        return self._documents.get(key)

    def __iter__(self) -> Iterator[tuple[str, Document]]:
        return iter(tuple(self._documents.items()))

    @property
    def _keys_of(self) -> dict[str, list[str]]:
        """Name of a workflow → the keys of the documents that hold one of that name, sorted."""
        if self._index is None:
            self._index = {}
            for key, document in sorted(self._documents.items()):
                if document.name is not None:
                    self._index.setdefault(document.name, []).append(key)
        return self._index

    def holder(self, name: str) -> tuple[str, Document] | None:
        """The document that holds the workflow of a name; of several, that of the first key."""
        keys = self._keys_of.get(name)
        return None if keys is None else (keys[0], self._documents[keys[0]])

    def names(self) -> tuple[str, ...]:
        """The names of all workflows, sorted."""
        return tuple(sorted(self._keys_of))

    def agents(self, *, besides: tuple[Document, int]) -> tuple[str, ...]:
        """Every action that some call asks for by name, sorted.

        Args:
            besides: a document and an offset in it; the word there is still being typed.
        """
        typed_in, offset = besides
        found = {
            mention.text
            for document in self._documents.values()
            for mention in document.structure.of_role(Role.AGENT)
            if not document.is_quoted(mention)
            and not (document is typed_in and mention.start <= offset <= mention.end)
        }
        return tuple(sorted(found))

    # Checking

    def diagnose(self, key: str, *, is_complete: bool = True) -> tuple[Diagnostic, ...]:
        """All that there is to say about one document, in this company.

        Args:
            key: of a document that is in the collection.
            is_complete: whether a workflow that is not in the collection does not exist. If not,
                nothing is said about calls of workflows it does not know.
        """
        name = self._documents[key].name
        keys = [key] if name is None else self._keys_of[name]
        namesakes = {each: self._documents[each].parsed for each in keys}
        world = World(
            load=functools.partial(self._load, is_complete=is_complete),
            members=self._keys_of.keys(),
        )
        return validate_set(namesakes, world)[key].diagnostics

    def _load(self, name: str, *, is_complete: bool) -> Definition | str | None:
        """The workflow of a name; one whose text is being edited is there, but nobody can tell."""
        held = self.holder(name)
        if held is not None:
            return held[1].parsed.definition
        return "no file of the workspace holds it" if is_complete else None

    def concerned(self, names: Iterable[str]) -> tuple[str, ...]:
        """The keys of the documents to judge anew when these workflows change, sorted.

        They are those that call one of them, directly or not, and those that have its name.
        """
        callers: dict[str, set[str]] = {}
        for key, document in self._documents.items():
            if document.name is not None:
                callers.setdefault(document.name, set()).add(key)
            for mention in document.structure.of_role(Role.CHILD):
                callers.setdefault(mention.text, set()).add(key)
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            for key in callers.get(waiting.pop(), set()) - found:
                found.add(key)
                name = self._documents[key].name
                if name is not None:
                    waiting.append(name)
        return tuple(sorted(found))
