"""Alembic's entry point: runs the steps on the connection that `upgrade` hands over."""

from __future__ import annotations

from alembic import context

from runkon_server.store.migrations import VERSION_TABLE


def run() -> None:
    """Run the pending steps, each in a transaction of its own."""
    context.configure(
        connection=context.config.attributes["connection"],
        version_table=VERSION_TABLE,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
