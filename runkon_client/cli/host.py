"""What commands from other packages may ask of the client: the object of the outermost context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.session import exit_codes, settings_of

if TYPE_CHECKING:
    from runkon_client.values import ConnectedWorker

_DEFAULT_NAMESPACE: Final = "default"


class Host:
    """Answers with plain values, so that both sides need nothing of each other but this form."""

    def definition(self, address: str, name: str) -> str | None:
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

    def namespace(self) -> str:
        """The namespace that a server is asked about."""
        from runkon_client.channel import resolve_endpoint

        settings = settings_of(click.get_current_context())
        return resolve_endpoint(None, settings.namespace, None).namespace or _DEFAULT_NAMESPACE

    def workers(self, address: str) -> list[ConnectedWorker]:
        """The workers of that namespace that are connected to any replica of a server.

        Args:
            address: of the server.

        Raises:
            click.exceptions.Exit: the server did not answer, or refused; standard error says so.
        """
        settings = replace(settings_of(click.get_current_context()), address=address)
        with exit_codes(settings), settings.connect() as client:
            return list(client.workers())

    def actions(self, module: str) -> tuple[str, ...]:
        """The names of the actions of a Python module; `*` stands for all others.

        Args:
            module: as for `runkon worker`.

        Raises:
            click.UsageError: there is no such module, or it has no actions.
        """
        from runkon_client.cli.modules import load_actions

        return load_actions(module).names
