"""Workflow texts on the command line: reading them, and showing what is wrong with them."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import click

from runkon_client.cli.telling import printable
from runkon_client.sizes import too_large
from runkon_client.values import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runkon_client import SyncClient
    from runkon_client.errors import RunkonClientError
    from runkon_client.values import Diagnostic

STDIN: Final = "-"
_COLOUR: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def is_file(argument: str) -> bool:
    """Whether the argument means a file (`*.wf`, a path, or `-`) and not a stored workflow."""
    return argument == STDIN or argument.endswith(".wf") or "/" in argument


def read_source(path: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        click.UsageError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        source = _read_bytes(path).decode("utf-8")
    except OSError as reason:
        raise click.UsageError(f"cannot read {path}: {reason.strerror}") from reason
    except UnicodeDecodeError as reason:
        raise click.UsageError(f"{path} is not UTF-8: byte {reason.start} is invalid") from reason
    if not source:
        raise click.UsageError(f"{path} is empty")
    return source


def _read_bytes(path: str) -> bytes:
    if path != STDIN:
        return Path(path).read_bytes()
    if sys.stdin is None:  # closed by whoever started the program
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def write_text(path: str, text: str) -> None:
    """Put a text into a file, all of it or none; a file that is there keeps its rights.

    Raises:
        click.UsageError: it cannot be written.
    """
    target = Path(path).resolve()  # through links, so that they stay
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(text.encode())  # a device or a pipe, such as /dev/stdout
        else:
            _replace(target, text)
    except OSError as reason:
        raise click.UsageError(f"cannot write {path}: {reason.strerror}") from reason


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(text.encode())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def show_diagnostics(path: str, diagnostics: Iterable[Diagnostic], *, err: bool = True) -> None:
    """Print each as `file:line:column`, with the line and a caret below it."""
    for each in diagnostics:
        place = f"{path}:{each.line}:{each.column}" if each.line else path
        severity = click.style(each.severity, fg=_COLOUR.get(each.severity), bold=True)
        message = printable(each.message)
        click.echo(f"{place}: {severity} {each.code}: {message}", err=err)
        if each.excerpt:
            click.echo(printable(each.excerpt), err=err)
        if each.hint:
            click.echo(f"hint: {printable(each.hint)}", err=err)


class Material(TypedDict, total=False):
    """What a source names and does not hold, by name."""

    output_schemas: Mapping[str, str]
    snippets: Mapping[str, str]


def show_refusal(
    client: SyncClient,
    error: RunkonClientError,
    path: str,
    source: str,
    *,
    strict: bool = False,
    **beside: Unpack[Material],
) -> bool:
    """Print what the server found wrong with a source, if that is what the error is about.

    An error carries places only; the server is asked again, for excerpts and advice.
    """
    if not error.reason.startswith("DSL_"):
        return False
    problem = too_large(source)
    if problem is not None:
        show_diagnostics(path, [problem])
        return True
    found = client.validate_workflow(source, strict=strict, **beside)
    show_diagnostics(path, found.diagnostics)
    return True
