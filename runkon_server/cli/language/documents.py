"""The findings of `runkon check` for programs: JSON of our own, and SARIF for code scanners.

Fields of the JSON are only ever added; `docs/reference/check.md` describes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from runkon_server.dsl.codes import CODES, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runkon_server.cli.language.files import UnreadableError
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Source
    from runkon_server.dsl.validate import Report

_SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def json_of(reports: Mapping[str, Report], unreadable: Iterable[UnreadableError]) -> str:
    """One document about all files.

    Args:
        reports: by path.
        unreadable: what could not be read.
    """
    document = {
        "files": [
            {
                "path": path,
                "workflow": None if report.parsed is None else report.parsed.name,
                "valid": report.definition is not None,
                "diagnostics": [diagnostic_of(each, report.source) for each in report.diagnostics],
            }
            for path, report in reports.items()
        ],
        "unreadable": [{"path": each.path, "reason": each.reason} for each in unreadable],
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def diagnostic_of(found: Diagnostic, source: Source) -> dict[str, Any]:
    """One finding, with the fields of the contract's `Diagnostic`."""
    span = found.span
    fields = {
        "code": str(found.code),
        "severity": str(found.severity),
        "message": found.message,
        "hint": found.hint or "",
        "line": 0,
        "column": 0,
        "end_line": 0,
        "end_column": 0,
        "length": 0,
        "excerpt": "",
    }
    if span.line:
        end_line, end_column = source.position(span.end)
        fields |= {
            "line": span.line,
            "column": span.column,
            "end_line": end_line,
            "end_column": end_column,
            "length": max(1, span.length),
            "excerpt": "\n".join(found.render(source).split("\n")[1:3]),
        }
    return fields


def sarif_of(reports: Mapping[str, Report], version: str) -> str:
    """A log of one run in SARIF 2.1.0; columns are code points from 1, as everywhere here."""
    used = sorted({each.code for report in reports.values() for each in report.diagnostics})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CODES[code].title},
            "defaultConfiguration": {"level": _level(CODES[code].severity)},
        }
        for code in used
    ]
    results = [
        _result(each, path, report.source)
        for path, report in reports.items()
        for each in report.diagnostics
    ]
    run = {
        "tool": {"driver": {"name": "runkon check", "version": version, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(found: Diagnostic, path: str, source: Source) -> dict[str, Any]:
    text = f"{found.message} ({found.hint})" if found.hint else found.message
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(path)}}
    if found.span.line:
        end_line, end_column = source.position(found.span.end)
        place["region"] = {
            "startLine": found.span.line,
            "startColumn": found.span.column,
            "endLine": end_line,
            "endColumn": end_column,
        }
    return {
        "ruleId": found.code,
        "level": _level(found.severity),
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }


def _uri(path: str) -> str:
    return f"{'file://' if path.startswith('/') else ''}{quote(path)}"


def _level(severity: Severity) -> str:
    return "error" if severity is Severity.ERROR else "warning"
