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

    def put(self, key: str, document: Document) -> None:
        """Add or replace a document."""
        self._documents[key] = document

    def remove(self, key: str) -> None:
        """Forget a document, if it is known."""
        self._documents.pop(key, None)

    def get(self, key: str) -> Document | None:
        """The document of a key."""
        return self._documents.get(key)

    def __iter__(self) -> Iterator[tuple[str, Document]]:
        return iter(tuple(self._documents.items()))

    def holder(self, name: str) -> tuple[str, Document] | None:
        """The document that holds the workflow of a name; of several, that of the first key."""
        held = [item for item in self._documents.items() if item[1].name == name]
        return min(held, key=lambda item: item[0], default=None)

    def names(self) -> tuple[str, ...]:
        """The names of all workflows, sorted."""
        found = (document.name for document in self._documents.values())
        return tuple(sorted({name for name in found if name is not None}))

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
        namesakes = {
            other: document.parsed
            for other, document in sorted(self._documents.items())
            if document.name == name or other == key
        }
        world = World(
            load=functools.partial(self._load, is_complete=is_complete),
            members=frozenset(self.names()),
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
