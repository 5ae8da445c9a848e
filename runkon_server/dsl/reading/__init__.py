"""Tokens to syntax tree, by recursive descent: one module for each kind of node.

Every reader starts at the keyword of its construct and ends behind its last token. It reports
what is wrong, repairs what it can guess, and always returns: `parser.py` throws the tree away if
anything was an error. Recursion is bounded by the nesting limit (`Cursor.enter_block`).
"""
