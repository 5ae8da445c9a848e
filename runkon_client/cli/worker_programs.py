"""Options of `runkon worker` for actions that are no Python: programs, agents, services."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runkon_client.cli.numbers import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.worker import Actions


def program_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `serve_programs` takes."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in reversed(
        (
            click.option(
                "--exec",
                "programs",
                metavar="NAME=COMMAND",
                multiple=True,
                help="Execute calls of NAME with a command of the shell: the task as JSON on its "
                "standard input, what it prints is the output. `*` is every other name. May be "
                "repeated.",
            ),
            click.option(
                "--agents",
                metavar="DIR",
                type=folder,
                help="Execute calls with agents: `call plan` is DIR/plan.md.",
            ),
            click.option(
                "--agent-command",
                metavar="COMMAND",
                help="Answers an agent: the prompt on its standard input, RUNKON_MODEL and more "
                "in its environment.",
            ),
            click.option(
                "--http",
                "services",
                metavar="NAME=URL",
                multiple=True,
                help="Execute calls of NAME with a POST to a service. May be repeated.",
            ),
            click.option(
                "--http-header",
                "http_headers",
                metavar="'NAME: VALUE'",
                multiple=True,
                help="Send this along with --http. May be repeated.",
            ),
            click.option(
                "--http-token",
                metavar="VARIABLE",
                help="Send the value of this variable along with --http, as a bearer token.",
            ),
            click.option(
                "--http-timeout",
                "http_timeout_s",
                type=Seconds(0.1, 86_400),
                default=60.0,
                show_default=True,
                help="Seconds for one answer.",
            ),
            click.option(
                "--http-allow",
                metavar="NETWORK",
                multiple=True,
                help="Let --http reach this network too, such as 10.0.0.0/8; without it, only "
                "public addresses. May be repeated.",
            ),
        )
    ):
        command = option(command)
    return command


def serve_programs(
    actions: Actions,
    *,
    programs: tuple[str, ...],
    agents: Path | None,
    agent_command: str | None,
    services: tuple[str, ...],
    http_headers: tuple[str, ...],
    http_token: str | None,
    http_timeout_s: float,
    http_allow: tuple[str, ...],
    **_: object,
) -> None:
    """Offer what the options name.

    Raises:
        click.UsageError: they do not go together, or one cannot be used.
        ValueError: a name is taken, or an agent cannot be used.
    """
    if (agents is None) != (agent_command is None):
        raise click.UsageError("--agents and --agent-command go together")
    if programs or agents is not None:
        from runkon_client.worker.agents import add_agents
        from runkon_client.worker.programs import CommandLine, add_program

        for name, text in (_pair(word, "--exec NAME=COMMAND") for word in programs):
            add_program(actions, name, CommandLine(text=text))
        if agents is not None and agent_command is not None:
            add_agents(actions, agents, CommandLine(text=agent_command))
    if not services:
        if http_headers or http_token is not None or http_allow:
            raise click.UsageError("options about HTTP need --http NAME=URL")
        return
    try:
        from runkon_client.worker.http import Egress, Service, add_service
    except ModuleNotFoundError as reason:
        if reason.name != "httpx":
            raise
        raise click.ClickException("--http needs httpx: pip install 'runkon[http]'") from None

    egress = Egress(allowed=tuple(map(_network, http_allow)))
    headers = _headers(http_headers, http_token)
    for name, url in (_pair(word, "--http NAME=URL") for word in services):
        service = Service(url=url, headers=headers, timeout_s=http_timeout_s, egress=egress)
        add_service(actions, name, service)


def _pair(word: str, form: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name or not value.strip():
        raise click.UsageError(f"{word!r} is not {form}")
    return name, value


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError as reason:
        raise click.UsageError(f"--http-allow: {reason}") from reason


def _headers(words: tuple[str, ...], token: str | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if not colon:
            raise click.UsageError(f"{word!r} is not --http-header 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    if token is not None:
        if not os.environ.get(token):
            raise click.UsageError(f"not set: {token}")
        headers["Authorization"] = f"Bearer {os.environ[token]}"
    return headers
