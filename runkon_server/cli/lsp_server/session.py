"""One editor's documents and folders, and what it is told about them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lsprotocol import types

from runkon_server.cli.lsp_server import files
from runkon_server.cli.lsp_server.checking import Checks
from runkon_server.cli.lsp_server.converting import diagnostic
from runkon_server.dsl.editing.collection import Collection
from runkon_server.dsl.editing.document import Document
from runkon_server.dsl.editing.places import Encoding, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runkon_server.dsl.diagnostics import Diagnostic


class Session:
    """Everything between `initialize` and `exit`."""

    def __init__(
        self, publish: Callable[[types.PublishDiagnosticsParams], None], docs_url: str | None
    ) -> None:
        self.docs_url = docs_url
        self.collection = Collection()
        self.encoding = Encoding.UTF16
        self._publish = publish
        self._folders: dict[str, None] = {}
        self._open: dict[str, tuple[str, int | None]] = {}
        """Key of an open document → its address as the editor spells it, and its version."""
        self._told: dict[str, list[types.Diagnostic]] = {}
        self._checks = Checks(self._check)
        self._searches: set[asyncio.Task[None]] = set()

    # Documents

    def document(self, uri: str) -> Document | None:
        """The document of an address."""
        return self.collection.get(files.key_of(uri))

    def places(self, document: Document) -> Places:
        """The lines and columns of a document, as the editor counts them."""
        return Places(document.text, self.encoding)

    def uri_of(self, document: Document) -> str:
        """The address of a document."""
        entry = self._open.get(document.label)
        return files.uri_of(document.label) if entry is None else entry[0]

    def diagnose(self, document: Document) -> tuple[Diagnostic, ...]:
        """What there is to say about a document of the collection."""
        is_complete = files.is_inside(document.label, self._folders)
        return self.collection.diagnose(document.label, is_complete=is_complete)

    def opened(self, uri: str, version: int | None, text: str) -> None:
        """The editor has a document open; from now on its text counts, not the file's."""
        key = files.key_of(uri)
        is_new = key not in self._open
        self._open[key] = (uri, version)
        if is_new and key != uri and not files.is_inside(key, self._folders):
            self._add(
                (path, found)
                for path, found in files.siblings(key).items()
                if path not in self._open
            )
        self._put(key, text)

    changed = opened

    def saved(self, uri: str) -> None:
        """The editor has written a document."""
        self._check(files.key_of(uri))

    def closed(self, uri: str) -> None:
        """The editor has a document open no more; what its file says counts again."""
        key = files.key_of(uri)
        self._open.pop(key, None)
        self.file_changed(uri)

    def file_changed(self, uri: str) -> None:
        """A file was written, made or deleted; the text of an open document is not touched."""
        key = files.key_of(uri)
        if key in self._open:
            return
        text = files.read(key) if files.is_inside(key, self._folders) else None
        if text is None:
            self._drop(key)
        else:
            self._put(key, text)

    def _put(self, key: str, text: str) -> None:
        before = self.collection.get(key)
        if before is not None and before.text == text:
            self._checks.changed(key, len(text))
            return
        document = Document(text, key)
        self.collection.put(key, document)
        self._checks.changed(key, len(text))
        self._check_callers(before, document)

    def _drop(self, key: str) -> None:
        before = self.collection.get(key)
        self.collection.remove(key)
        self._checks.forget(key)
        self._tell(key, [])
        self._told.pop(key, None)
        self._check_callers(before, None)

    def _check_callers(self, before: Document | None, after: Document | None) -> None:
        names = {each.name for each in (before, after) if each is not None} - {None}
        keys = self.collection.concerned(name for name in names if name is not None)
        self._checks.concerns(key for key in keys if after is None or key != after.label)

    def _add(self, texts: Iterable[tuple[str, str]]) -> None:
        for key, text in texts:
            self.collection.put(key, Document(text, key))

    # Folders

    def open_folders(self, uris: Iterable[str]) -> None:
        """Look for the workflow files of further folders, without waiting for them."""
        folders = [key for uri in uris if (key := files.key_of(uri)) != uri]
        self._folders.update(dict.fromkeys(folders))
        if folders:
            search = asyncio.get_running_loop().create_task(self._search(folders))
            self._searches.add(search)
            search.add_done_callback(self._searches.discard)

    def close_folders(self, uris: Iterable[str]) -> None:
        """Forget the workflow files of folders that are open no more."""
        for uri in uris:
            self._folders.pop(files.key_of(uri), None)
        for key, _ in self.collection:
            if key not in self._open and not files.is_inside(key, self._folders):
                self._drop(key)

    async def _search(self, folders: list[str]) -> None:
        texts = await asyncio.to_thread(files.find, folders)
        self._add((key, text) for key, text in texts.items() if key not in self._open)
        self._checks.concerns(key for key, _ in self.collection)

    # Telling

    def _check(self, key: str) -> None:
        document = self.collection.get(key)
        if document is None:
            return
        if key not in self._open and not files.is_inside(key, self._folders):
            return
        places = self.places(document)
        found = [diagnostic(each, places, self.docs_url) for each in self.diagnose(document)]
        self._tell(key, found)

    def _tell(self, key: str, found: list[types.Diagnostic]) -> None:
        """Publish what was found; about a document that nobody edits, only if it is news."""
        if key not in self._open and self._told.get(key, []) == found:
            return
        self._told[key] = found
        uri, version = self._open.get(key, (files.uri_of(key), None))
        self._publish(types.PublishDiagnosticsParams(uri=uri, diagnostics=found, version=version))
