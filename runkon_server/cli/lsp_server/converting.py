"""Values of `dsl.editing` as the protocol spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lsprotocol import types

from runkon_server.dsl.codes import Severity
from runkon_server.dsl.editing.completing import ItemKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.editing.completing import Completion
    from runkon_server.dsl.editing.fixing import Fix
    from runkon_server.dsl.editing.outlining import Symbol
    from runkon_server.dsl.editing.places import Places

_SEVERITIES: Final = {
    Severity.ERROR: types.DiagnosticSeverity.Error,
    Severity.WARNING: types.DiagnosticSeverity.Warning,
}
_ITEM_KINDS: Final = {
    ItemKind.KEYWORD: types.CompletionItemKind.Keyword,
    ItemKind.KEY: types.CompletionItemKind.Property,
    ItemKind.STEP: types.CompletionItemKind.Function,
    ItemKind.MARKER: types.CompletionItemKind.EnumMember,
    ItemKind.WORKFLOW: types.CompletionItemKind.Module,
    ItemKind.INPUT: types.CompletionItemKind.Field,
    ItemKind.VARIABLE: types.CompletionItemKind.Variable,
    ItemKind.WORD: types.CompletionItemKind.Value,
    ItemKind.GATE_TYPE: types.CompletionItemKind.Interface,
    ItemKind.ACTION: types.CompletionItemKind.Function,
}
_SYMBOL_KINDS: Final = {
    "workflow": types.SymbolKind.Module,
    "meta": types.SymbolKind.Object,
    "inputs": types.SymbolKind.Struct,
    "input": types.SymbolKind.Field,
    "call": types.SymbolKind.Function,
    "parallel call": types.SymbolKind.Function,
    "script": types.SymbolKind.Function,
    "call workflow": types.SymbolKind.Module,
    "foreach": types.SymbolKind.Array,
}
"""Construct → kind; gates are events, and blocks are namespaces."""


def range_of(places: Places, start: int, end: int) -> types.Range:
    """A range between two offsets."""
    return types.Range(
        start=types.Position(*places.place(start)), end=types.Position(*places.place(end))
    )


def diagnostic(found: Diagnostic, places: Places, docs_url: str | None) -> types.Diagnostic:
    """A diagnostic; its hint becomes a second line."""
    message = found.message if found.hint is None else f"{found.message}\n{found.hint}"
    link = None if docs_url is None else docs_url.replace("{code}", found.code)
    return types.Diagnostic(
        range=range_of(places, found.span.offset, found.span.end),
        message=message,
        severity=_SEVERITIES[found.severity],
        code=found.code,
        code_description=None if link is None else types.CodeDescription(href=link),
        source="runkon",
    )


def markdown(text: str) -> types.MarkupContent:
    """Text to show."""
    return types.MarkupContent(kind=types.MarkupKind.Markdown, value=text)


def completion(
    item: Completion, places: Places, order: int, *, takes_snippets: bool
) -> types.CompletionItem:
    """One thing offered; editors sort by `sort_text`, so the order is kept."""
    is_snippet = takes_snippets and item.snippet is not None
    text = item.snippet if is_snippet and item.snippet is not None else item.insert
    return types.CompletionItem(
        label=item.label,
        kind=_ITEM_KINDS[item.kind],
        detail=item.detail or None,
        documentation=markdown(item.text) if item.text else None,
        sort_text=f"{order:04}",
        insert_text_format=types.InsertTextFormat.Snippet
        if is_snippet
        else types.InsertTextFormat.PlainText,
        text_edit=types.TextEdit(range=range_of(places, item.start, item.end), new_text=text),
    )


def symbols(found: Iterable[Symbol], places: Places) -> list[types.DocumentSymbol]:
    """An outline."""
    return [
        types.DocumentSymbol(
            name=each.name,
            kind=_symbol_kind(each.construct),
            range=range_of(places, each.start, each.end),
            selection_range=range_of(places, each.name_start, each.name_end),
            children=symbols(each.children, places),
        )
        for each in found
    ]


def _symbol_kind(construct: str) -> types.SymbolKind:
    default = types.SymbolKind.Namespace
    if construct.startswith("gate"):
        default = types.SymbolKind.Event
    return _SYMBOL_KINDS.get(construct, default)


def code_action(fix: Fix, uri: str, places: Places, told: types.Diagnostic) -> types.CodeAction:
    """A quick fix for a diagnostic that was told."""
    edit = types.TextEdit(range=range_of(places, fix.start, fix.end), new_text=fix.text)
    return types.CodeAction(
        title=fix.title,
        kind=types.CodeActionKind.QuickFix,
        diagnostics=[told],
        is_preferred=fix.is_preferred,
        edit=types.WorkspaceEdit(changes={uri: [edit]}),
    )
