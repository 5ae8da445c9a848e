"""What callers may see: SELECTs that take a connection, never write and never commit.

Everything is looked up inside a namespace; an object of another one is unknown.
"""
