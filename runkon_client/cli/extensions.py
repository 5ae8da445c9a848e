"""Commands of `runkon` that another package brings along, found by the name they registered under.

The language is implemented once, in the server's package, which the client never imports: it asks
for the entry point of that name, and whatever package is installed answers. In turn the object of
the outermost context is `fetch_definition`: what such a command may ask of a server.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import click

from runkon_client.cli.exits import Exit
from runkon_client.cli.session import exit_codes, fail, settings_of

GROUP: Final = "runkon.commands"
"""The group of entry points; each is a `click.Command`."""


def load_extension(name: str) -> click.Command:
    """The command that was registered under a name.

    Raises:
        click.exceptions.Exit: there is none, or its package cannot be imported; standard error
            says so.
    """
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP, name=name)
    if not found:
        fail(
            f"`runkon {name}` comes with the server's package, which is not installed here",
            hint="install all of `runkon`, or ask a server: see `runkon workflows --help`",
        )
        raise click.exceptions.Exit(Exit.USAGE)
    entry = next(iter(found))
    try:
        command = entry.load()
    except (ImportError, AttributeError) as reason:
        fail(f"`runkon {name}` cannot be loaded from {entry.value}: {reason}")
        raise click.exceptions.Exit(Exit.USAGE) from reason
    assert isinstance(command, click.Command)
    return command


def fetch_definition(address: str, name: str) -> str | None:
    """The newest definition of that name, as JSON; None if the server stores no such one.

    Args:
        address: of the server.
        name: of the workflow.

    Raises:
        click.exceptions.Exit: the server did not answer, or refused; standard error says so.
    """
    from runkon_client.errors import NotFoundError

    settings = replace(settings_of(click.get_current_context()), address=address)
    with exit_codes(settings), settings.connect() as client:
        try:
            return client.get_workflow(name).definition_json
        except NotFoundError:
            return None
