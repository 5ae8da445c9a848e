"""`python -m runkon_client.cli` is `runkon`."""

from runkon_client.cli import main

main(prog_name="runkon")
