"""Requests are checked here, all violations at once, and turned into plain values.

The limits are those of the comments in the .proto files. A servicer sees a request only after its
validator has passed it.
"""
