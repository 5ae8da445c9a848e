"""`runkon retention`: get, set."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.session import ServerGroup, Settings, print_document

if TYPE_CHECKING:
    from runkon_client.values import Retention

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WORDS: Final = ("days", "hours", "minutes")
_NONE: Final = timedelta()
_FOREVER: Final = "forever"
_INHERIT: Final = "inherit"

_for_all = click.option("--all", "for_all", is_flag=True, help="The default of all namespaces.")


@click.group(cls=ServerGroup)
def retention() -> None:
    """Say how long runs are kept after their end.

    A run goes with the runs below it, its steps and its events; what stays for 90 days is how it
    ended. For administrators: on the machine of a replica.
    """


@retention.command("get", epilog=explain())
@_for_all
@click.pass_obj
def get_retention(settings: Settings, *, for_all: bool) -> None:
    """Show what holds for the namespace."""
    with settings.connect() as client:
        _show(settings, client.admin.retention(for_all=for_all))


@retention.command("set", epilog=explain())
@click.argument("keep_for", metavar="SPAN")
@_for_all
@click.pass_obj
def set_retention(settings: Settings, keep_for: str, *, for_all: bool) -> None:
    """Keep runs for SPAN after their end, such as 30d; `forever`, or `inherit` for the default."""
    span = None if keep_for in {_FOREVER, _INHERIT} else _read(keep_for)
    with settings.connect() as client:
        if keep_for == _INHERIT:
            found = client.admin.inherit_retention(for_all=for_all)
        else:
            found = client.admin.set_retention(span, for_all=for_all)
    _show(settings, found)


def _read(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,5})([smhdw])", text)
    if found is None:
        raise click.UsageError(
            f"{text!r} is no span such as 30d (units s, m, h, d, w), {_FOREVER} or {_INHERIT}"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _show(settings: Settings, found: Retention) -> None:
    if settings.as_json:
        print_document(found)
        return
    told = "kept for ever" if found.keep_for is None else f"kept for {_told(found.keep_for)}"
    why = " (the default)" if found.is_inherited else ""
    click.echo(f"{found.namespace or 'all namespaces'}: {told}{why}")


def _told(keep_for: timedelta) -> str:
    """In the largest unit that makes it a whole number: `90 days`, `36 hours`."""
    unit = next((each for each in _WORDS if keep_for % timedelta(**{each: 1}) == _NONE), "seconds")
    number = keep_for / timedelta(**{unit: 1})
    return f"{number:.10g} {unit[:-1] if number == 1 else unit}"
