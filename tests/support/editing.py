"""Texts with a `|` where the cursor is, for tests of what editors are told."""

from __future__ import annotations

from runkon_server.dsl.editing.collection import Collection
from runkon_server.dsl.editing.document import Document


def marked(text: str) -> tuple[Document, int]:
    """The text without its one `|`, and the offset of that."""
    offset = text.index("|")
    return Document(text[:offset] + text[offset + 1 :], "w.wf"), offset


def company(document: Document, *others: str) -> Collection:
    """A collection of a document and some other texts."""
    collection = Collection()
    collection.put(document.label, document)
    for number, text in enumerate(others):
        label = f"other{number}.wf"
        collection.put(label, Document(text, label))
    return collection
