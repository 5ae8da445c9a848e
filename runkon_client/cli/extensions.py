"""Commands of `runkon` that another package brings along, found by the name they registered under.

The language is implemented once, in the server's package, which the client never imports: it asks
for the entry point of that name, and whatever package is installed answers. What such a command may
ask of the client in turn is `runkon_client.cli.host.Host`.
"""

from __future__ import annotations

from typing import Final

import click

from runkon_client.cli.exits import Exit
from runkon_client.cli.session import fail

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
