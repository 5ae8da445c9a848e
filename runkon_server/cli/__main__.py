"""`python -m runkon_server.cli` is `runkon-server`."""

from __future__ import annotations

from runkon_server.cli import main

main(prog_name="runkon-server")
