"""The protocol's requests and notifications, each answered by one call."""

from __future__ import annotations

import functools
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from runkon_server.cli.lsp_server import converting
from runkon_server.cli.lsp_server.session import Session
from runkon_server.dsl.editing.completing import complete
from runkon_server.dsl.editing.defining import define
from runkon_server.dsl.editing.fixing import fixes
from runkon_server.dsl.editing.hovering import hover
from runkon_server.dsl.editing.laying_out import lay_out
from runkon_server.dsl.editing.outlining import outline
from runkon_server.dsl.editing.places import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.dsl.editing.document import Document

ParamsT = TypeVar("ParamsT")
ResultT = TypeVar("ResultT")

_TRIGGERS: Final = (".", "=", "{", " ", '"')
_log = logging.getLogger(__name__)


class WorkflowLanguageServer(LanguageServer):
    """A language server that keeps its troubles to itself: they go to standard error."""

    def __init__(self, docs_url: str | None) -> None:
        super().__init__(
            "runkon",
            version("runkon"),
            # Whole texts: they are small, and a client that counts lines otherwise cannot harm.
            text_document_sync_kind=types.TextDocumentSyncKind.Full,
        )
        self.session = Session(self.text_document_publish_diagnostics, docs_url)
        self.exit_code = 1
        """What the process ends with: 0 once the editor said `shutdown`."""

    def report_server_error(self, error: Exception, source: Any) -> None:  # noqa: ANN401 - pygls' type is private
        """Log an error that no request is waiting for, instead of showing it to the user."""
        _log.error("%s: %s", source, error)


def make_server(docs_url: str | None) -> WorkflowLanguageServer:
    """A server that is ready to be started.

    Args:
        docs_url: address of the page about a diagnostic, `{code}` standing for its code.
    """
    server = WorkflowLanguageServer(docs_url)
    _answer_lifecycle(server)
    _answer_synchronisation(server)
    _answer_questions(server)
    return server


def _quietly(
    answer: Callable[[ParamsT], ResultT], *, instead: ResultT
) -> Callable[[ParamsT], ResultT]:
    """The same, with an empty answer where it would raise: no defect of ours stops an editor."""

    @functools.wraps(answer)
    def answered(params: ParamsT) -> ResultT:
        try:
            return answer(params)
        except Exception:  # noqa: BLE001 - logged, and answered with nothing
            _log.exception("%s failed", answer.__name__)
            return instead

    return answered


def _answer_lifecycle(server: WorkflowLanguageServer) -> None:
    session = server.session

    def initialize(_params: types.InitializeParams) -> None:
        agreed = types.PositionEncodingKind(server.workspace.position_encoding)
        session.encoding = Encoding(agreed.value)

    def initialized(_params: types.InitializedParams) -> None:
        folders = [folder.uri for folder in server.workspace.folders.values()]
        root = server.workspace.root_uri
        session.open_folders(folders or ([root] if root else []))
        _watch_files(server)

    def folders_changed(params: types.DidChangeWorkspaceFoldersParams) -> None:
        session.close_folders(folder.uri for folder in params.event.removed)
        session.open_folders(folder.uri for folder in params.event.added)

    def shutdown(_params: None) -> None:
        server.exit_code = 0

    _register(server, types.INITIALIZE, initialize)
    _register(server, types.INITIALIZED, initialized)
    _register(server, types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, folders_changed)
    _register(server, types.SHUTDOWN, shutdown)


def _watch_files(server: WorkflowLanguageServer) -> None:
    """Ask to be told when a workflow file changes on disk, if the editor can do that."""
    workspace = server.client_capabilities.workspace
    watching = workspace.did_change_watched_files if workspace is not None else None
    if watching is None or not watching.dynamic_registration:
        return
    watchers = [types.FileSystemWatcher(glob_pattern="**/*.wf")]
    registration = types.Registration(
        id="workflow-files",
        method=types.WORKSPACE_DID_CHANGE_WATCHED_FILES,
        register_options=types.DidChangeWatchedFilesRegistrationOptions(watchers=watchers),
    )
    server.client_register_capability(types.RegistrationParams(registrations=[registration]))


def _answer_synchronisation(server: WorkflowLanguageServer) -> None:
    session = server.session

    def did_open(params: types.DidOpenTextDocumentParams) -> None:
        item = params.text_document
        session.opened(item.uri, item.version, item.text)

    def did_change(params: types.DidChangeTextDocumentParams) -> None:
        item = params.text_document
        text = server.workspace.get_text_document(item.uri).source
        session.changed(item.uri, item.version, text)

    def did_save(params: types.DidSaveTextDocumentParams) -> None:
        session.saved(params.text_document.uri)

    def did_close(params: types.DidCloseTextDocumentParams) -> None:
        session.closed(params.text_document.uri)

    def files_changed(params: types.DidChangeWatchedFilesParams) -> None:
        for change in params.changes:
            session.file_changed(change.uri)

    _register(server, types.TEXT_DOCUMENT_DID_OPEN, did_open)
    _register(server, types.TEXT_DOCUMENT_DID_CHANGE, did_change)
    _register(server, types.TEXT_DOCUMENT_DID_SAVE, did_save)
    _register(server, types.TEXT_DOCUMENT_DID_CLOSE, did_close)
    _register(server, types.WORKSPACE_DID_CHANGE_WATCHED_FILES, files_changed)


def _register(
    server: WorkflowLanguageServer,
    method: str,
    answer: Callable[[ParamsT], ResultT | None],
    options: object = None,
) -> None:
    server.feature(method, options)(_quietly(answer, instead=None))


def _answer_questions(server: WorkflowLanguageServer) -> None:
    answers = _Answers(server)
    completion = types.CompletionOptions(trigger_characters=list(_TRIGGERS))
    actions = types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    _register(server, types.TEXT_DOCUMENT_COMPLETION, answers.completion, completion)
    _register(server, types.TEXT_DOCUMENT_HOVER, answers.hover)
    _register(server, types.TEXT_DOCUMENT_DEFINITION, answers.definition)
    _register(server, types.TEXT_DOCUMENT_DOCUMENT_SYMBOL, answers.symbols)
    _register(server, types.TEXT_DOCUMENT_FORMATTING, answers.formatting)
    _register(server, types.TEXT_DOCUMENT_CODE_ACTION, answers.code_actions, actions)


class _Answers:
    """What is answered about a document; nothing, if the editor never opened it."""

    def __init__(self, server: WorkflowLanguageServer) -> None:
        self._server = server
        self._session = server.session

    def completion(self, params: types.CompletionParams) -> types.CompletionList | None:
        document = self._session.document(params.text_document.uri)
        if document is None:
            return None
        context = params.context
        is_asked = (
            context is None
            or context.trigger_kind is not types.CompletionTriggerKind.TriggerCharacter
        )
        places = self._session.places(document)
        offset = self._offset(document, params.position)
        found = complete(document, offset, self._session.collection, is_asked=is_asked)
        takes_snippets = self._takes_snippets()
        items = [
            converting.completion(item, places, order, takes_snippets=takes_snippets)
            for order, item in enumerate(found)
        ]
        return types.CompletionList(is_incomplete=False, items=items)

    def _takes_snippets(self) -> bool:
        text_document = self._server.client_capabilities.text_document
        completion = None if text_document is None else text_document.completion
        item = None if completion is None else completion.completion_item
        return item is not None and bool(item.snippet_support)

    def hover(self, params: types.HoverParams) -> types.Hover | None:
        document = self._session.document(params.text_document.uri)
        if document is None:
            return None
        offset = self._offset(document, params.position)
        found = hover(document, offset, self._session.collection)
        if found is None:
            return None
        places = self._session.places(document)
        return types.Hover(
            contents=converting.markdown(found.text),
            range=converting.range_of(places, found.start, found.end),
        )

    def definition(self, params: types.DefinitionParams) -> list[types.Location] | None:
        document = self._session.document(params.text_document.uri)
        if document is None:
            return None
        offset = self._offset(document, params.position)
        return [
            types.Location(
                uri=self._session.uri_of(target.document),
                range=converting.range_of(
                    self._session.places(target.document), target.mention.start, target.mention.end
                ),
            )
            for target in define(document, offset, self._session.collection)
        ]

    def symbols(self, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol] | None:
        document = self._session.document(params.text_document.uri)
        if document is None:
            return None
        return converting.symbols(outline(document), self._session.places(document))

    def formatting(self, params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
        document = self._session.document(params.text_document.uri)
        text = None if document is None else lay_out(document)
        if document is None or text is None:
            return None
        if text == document.text:
            return []
        places = self._session.places(document)
        whole = converting.range_of(places, 0, len(document.text))
        return [types.TextEdit(range=whole, new_text=text)]

    def code_actions(self, params: types.CodeActionParams) -> list[types.CodeAction] | None:
        document = self._session.document(params.text_document.uri)
        wanted = params.context.only
        if document is None or (wanted and types.CodeActionKind.QuickFix not in wanted):
            return None
        places = self._session.places(document)
        start = self._offset(document, params.range.start)
        end = self._offset(document, params.range.end)
        uri = params.text_document.uri
        return [
            converting.code_action(
                fix, uri, places, converting.diagnostic(found, places, self._session.docs_url)
            )
            for found in self._session.diagnose(document)
            if found.span.offset <= end and start <= found.span.end
            for fix in fixes(found, document)
        ]

    def _offset(self, document: Document, position: types.Position) -> int:
        return self._session.places(document).offset(position.line, position.character)
