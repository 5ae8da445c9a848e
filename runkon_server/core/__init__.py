"""The engine: given a definition, a run's inputs and what has happened, what is to be done now?

Pure: no clock, no randomness, no I/O, no async, no protobuf. `restore`, `advance` and their laws
are described in `docs/adr/0004-a-run-is-decided-never-driven.md`.
"""
