"""`runkon lsp`: the language server for editors."""

from __future__ import annotations

from pathlib import Path

import click

_EXTRA = frozenset({"pygls", "lsprotocol", "cattrs", "attrs"})


@click.command(epilog="Exit codes: 0 the editor ended it; 1 the editor went away; 2 wrong usage.")
@click.option(
    "--docs-url",
    envvar="RUNKON_DOCS_URL",
    show_envvar=True,
    metavar="URL",
    help="Where the page about a diagnostic is, {code} in it standing for the code; editors link to"
    " it. Default: docs/diagnostics, if this runs from the sources.",
)
def lsp(docs_url: str | None) -> None:
    """Serve editors: diagnostics, completion, hover, definitions, formatting.

    Editors start it themselves and speak the Language Server Protocol with it on standard input
    and output, as is told in docs/editors. It reads the workflow files (`*.wf`) of the folders
    that are open, asks no server and runs nothing.
    """
    try:
        from runkon_server.cli.lsp_server.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise click.UsageError(
            f"the language server needs `{error.name}`: pip install 'runkon[lsp]'"
        ) from None

    if docs_url is not None and "{code}" not in docs_url:
        raise click.BadParameter("write {code} where the code belongs", param_hint="--docs-url")
    server = make_server(docs_url or _own_pages())
    server.start_io()
    raise click.exceptions.Exit(server.exit_code)


def _own_pages() -> str | None:
    """The pages of the source tree this runs from; None if it runs from an installed package."""
    pages = Path(__file__).resolve().parents[2] / "docs" / "diagnostics"
    return f"{pages.as_uri()}/{{code}}.md" if pages.is_dir() else None
