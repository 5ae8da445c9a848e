"""Actions that are programs of any language: see `add_program`."""

from runkon_client.worker.programs.command import CommandLine, add_program
from runkon_client.worker.programs.document import describe

__all__ = ["CommandLine", "add_program", "describe"]
