"""The commands of `runkon` that work on workflow files by themselves: check, fmt, graph.

They are found by their entry points (group `runkon.commands`) and run in the client's program, so
nothing here needs gRPC, a database or a configuration.
"""
