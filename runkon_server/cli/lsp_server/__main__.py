"""`python -m runkon_server.cli.lsp_server`, for where `runkon` is not on the path."""

from __future__ import annotations

from runkon_server.cli.lsp import lsp

lsp(prog_name="python -m runkon_server.cli.lsp_server")
