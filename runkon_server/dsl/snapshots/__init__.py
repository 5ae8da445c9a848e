"""Writing and reading snapshots; `runkon_server.dsl.snapshot` says what they are."""
