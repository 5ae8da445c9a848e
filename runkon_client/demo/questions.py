"""Answering a gate: by asking whoever sits at the terminal, or as a matter of course."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from runkon_client import SyncClient
    from runkon_client.values import Gate

_REJECT: Final = "reject"
_APPROVE: Final = "approve"


def ask(client: SyncClient, gate: Gate) -> None:
    """Let the person decide, who sees the question already, and tell the server."""
    keys = [option.key for option in gate.options]
    answers = [*(keys or [_APPROVE]), _REJECT]
    click.echo()
    answer = click.prompt("Your answer", type=click.Choice(answers), default=answers[0])
    words = click.prompt("A word of feedback (may be empty)", default="", show_default=False)
    handle = client.gate(gate.id)
    if answer == _REJECT and _REJECT not in keys:
        handle.reject(words)
    else:
        handle.approve(words, selections=[answer] if keys else [])


def agree(client: SyncClient, gate: Gate) -> None:
    """Approve with the first option, and say so."""
    selections = [option.key for option in gate.options[:1]]
    client.gate(gate.id).approve("Looks good to me", selections=selections)
    chosen = f" with {selections[0]}" if selections else ""
    click.echo(f"--yes: {gate.name} approved{chosen}")
