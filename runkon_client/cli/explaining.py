"""`runkon explain`: why a run is not moving, and what would move it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runkon_client.cli.exits import explain as exit_codes
from runkon_client.cli.naming import find_run_id
from runkon_client.cli.session import ServerCommand, Settings, print_document
from runkon_client.cli.telling import printable, span
from runkon_client.values import Explanation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client.values import Blocker


@click.command(cls=ServerCommand, epilog=exit_codes())
@click.argument("run")
@click.pass_obj
def explain(settings: Settings, run: str) -> None:
    """Say why a run is not moving, and what would move it.

    RUN is a run's id, or the key that it was started with. Child runs are explained in turn.
    """
    with settings.connect() as client:
        explanation = client.run(find_run_id(client, run)).explain()
    if settings.as_json:
        print_document(explanation)
        return
    for line in explanation_lines(explanation):
        click.echo(line)


def explanation_lines(explanation: Explanation, indent: str = "") -> Iterator[str]:
    """The explanation as text, children indented below what waits for them."""
    yield printable(
        f"{indent}{explanation.run_id}  {explanation.workflow_name}  {explanation.status}"
    )
    inner = indent + "  "
    if not explanation.blockers:
        yield printable(inner + explanation.headline)
    for blocker in explanation.blockers:
        yield from _blocker_lines(explanation, blocker, inner)
    if explanation.blockers_left_out:
        yield f"{inner}… and {explanation.blockers_left_out} more"


def _blocker_lines(explanation: Explanation, blocker: Blocker, indent: str) -> Iterator[str]:
    mark = "!" if blocker.needs_action else "·"
    step = f"{blocker.step_name}: " if blocker.step_name else ""
    yield printable(f"{indent}{mark} {step}{blocker.text}")
    times = []
    if blocker.since is not None and explanation.at is not None:
        times.append(f"for {span(max(explanation.at, blocker.since) - blocker.since)}")
    if blocker.until is not None:
        times.append(f"until {blocker.until.astimezone():%Y-%m-%d %H:%M:%S}")
    if times:
        yield f"{indent}  {', '.join(times)}"
    if blocker.remedy:
        yield printable(f"{indent}  → {blocker.remedy}")
    if isinstance(blocker.details, Explanation):
        yield from explanation_lines(blocker.details, indent + "  ")
