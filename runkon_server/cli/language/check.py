"""`runkon check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runkon_server.cli.language.excerpts import show
from runkon_server.cli.language.files import (
    SNAPSHOT_SUFFIX,
    STDIN,
    Refusals,
    UnreadableError,
    find_files,
    label_of,
)
from runkon_server.cli.language.outcomes import explain, leave
from runkon_server.cli.language.surroundings import Neighbours, ScriptFolders, offers_of
from runkon_server.dsl.check import World
from runkon_server.dsl.checking.offers import served_actions, together, where_served
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshots.explaining import read_snapshot
from runkon_server.dsl.validate_set import validate_set

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runkon_server.cli.language.surroundings import Host
    from runkon_server.dsl.parser import ParseResult
    from runkon_server.dsl.validate import Report

_JSON: Final = "runkon.as_json"
"""Where the client notes that `--json` stood before the command's name."""


@click.command(
    epilog=explain(clean="no errors", found="errors", server=True),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="For people, for programs, or for code scanners.",
)
@click.option(
    "--known",
    metavar="FILE",
    help="What there is where they will run (TOML: actions, gate_types, targets, providers,"
    " identities, snippets, schemas); a use of any other is reported.",
)
@click.option(
    "--schema",
    "schemas",
    multiple=True,
    metavar="[NAME=]FILE|DIR",
    help="Output schemas that exist; a use of any other is reported. May be repeated.",
)
@click.option(
    "--snippet",
    "snippets",
    multiple=True,
    metavar="[NAME=]FILE|DIR",
    help="Prompt snippets that exist, likewise.",
)
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="MODULE",
    help="A worker's Python file or module, as for `runkon worker`; a call of an action that none"
    " of them serves is reported. May be repeated.",
)
@click.option(
    "--server",
    metavar="HOST:PORT",
    help="Look there for called workflows that are no files here.",
)
@click.option(
    "--served",
    is_flag=True,
    help="Report what no worker serves that is connected to the --server.",
)
@click.option(
    "--scripts",
    multiple=True,
    metavar="FOLDER",
    help="Where the paths in `script` steps begin; may be repeated.  [default: .]",
)
@click.option("--no-scripts", is_flag=True, help="Do not look for scripts.")
@click.pass_context
def check(
    context: click.Context,
    paths: tuple[str, ...],
    *,
    strict: bool,
    format_name: str,
    known: str | None,
    schemas: tuple[str, ...],
    snippets: tuple[str, ...],
    workers: tuple[str, ...],
    server: str | None,
    served: bool,
    scripts: tuple[str, ...],
    no_scripts: bool,
) -> None:
    """Check workflow files, and say what is wrong with them.

    A folder means all `.wf` files in it and below; - is standard input; without a PATH it is the
    working directory. All are checked as one set: they may call each other. A file *.json is
    read as the snapshot of a definition, as a run keeps it.
    """
    if scripts and no_scripts:
        raise click.UsageError("--scripts says where to look; it does not go with --no-scripts")
    if served and server is None:
        raise click.UsageError("--served asks a server: say which with --server")
    paths = paths or (".",)
    refusals = Refusals()
    results = read_all(find_files(paths, refusals), refusals)
    host: Host = context.find_root().obj
    world = _known(known, schemas, snippets)
    if workers:
        names = {name for each in workers for name in host.actions(each)}
        world = replace(world, actions=served_actions({*names, *(world.actions or ())}))
    if served and server is not None:
        offers = together(map(offers_of, host.workers(server)))
        world = where_served(world, offers, host.namespace())
    world = replace(
        world,
        load=neighbours_of(paths, None if server is None else partial(host.definition, server)),
        scripts=None if no_scripts else ScriptFolders(scripts or (".",)),
    )
    reports = validate_set(results, world, is_strict=strict)
    if format_name == "text" and context.meta.get(_JSON):
        format_name = "json"
    if format_name == "text":
        _tell(reports)
    else:
        click.echo(_document(format_name, reports, refusals))
    leave(
        found=any(report.definition is None for report in reports.values()),
        unreadable=bool(refusals.told),
    )


def read_all(files: Sequence[str], refusals: Refusals) -> dict[str, ParseResult]:
    """What each file says, by its label; what cannot be read is left out."""
    texts = {label_of(path): refusals.read(path) for path in files}
    return {label: _read(text, label) for label, text in texts.items() if text is not None}


def _read(text: str, label: str) -> ParseResult:
    return read_snapshot(text, label) if label.endswith(SNAPSHOT_SUFFIX) else parse(text, label)


def neighbours_of(
    paths: Sequence[str], fetch: Callable[[str], str | None] | None = None
) -> Neighbours:
    """Where to look for workflows beyond the arguments."""
    singles = [Path(path) for path in paths if path == STDIN or not Path(path).is_dir()]
    folders = [path.parent for path in singles if str(path) != STDIN]
    return Neighbours(folders, is_whole=not singles, fetch=fetch)


def _known(path: str | None, schemas: tuple[str, ...], snippets: tuple[str, ...]) -> World:
    """What the options tell about the place; what they name adds to what the file names."""
    from runkon_server.cli.language.known import read_known
    from runkon_server.cli.language.material import schemas_of, snippets_of

    try:
        world = World() if path is None else read_known(path)
        if schemas:
            world = replace(world, schemas={**(world.schemas or {}), **schemas_of(schemas)})
        if snippets:
            world = replace(world, snippets=(*(world.snippets or ()), *snippets_of(snippets)))
    except UnreadableError as error:
        raise click.UsageError(str(error)) from error
    return world


def _document(format_name: str, reports: Mapping[str, Report], refusals: Refusals) -> str:
    from runkon_server.cli.language.documents import json_of, sarif_of

    if format_name == "json":
        return json_of(reports, refusals.told)
    return sarif_of(reports, version("runkon"))


def _tell(reports: Mapping[str, Report]) -> None:
    for report in reports.values():
        show(report.diagnostics, report.source)
    if not reports:
        click.echo("no workflow files found", err=True)
        return
    count = Counter(each.severity for report in reports.values() for each in report.diagnostics)
    files = _counted(len(reports), "file")
    errors, warnings = count[Severity.ERROR], count[Severity.WARNING]
    if not errors and not warnings:
        click.echo(f"{files} checked, nothing to complain about")
        return
    click.echo(f"{files} checked: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
