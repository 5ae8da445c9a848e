"""Options of the form NAME=VALUE."""

from __future__ import annotations

import click


def read_pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Split each at its first `=`; the value may be empty and may hold further ones.

    Raises:
        click.BadParameter: no `=`, no name, or a name twice.
    """
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", context, parameter)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", context, parameter)
        found[name] = value
    return found
