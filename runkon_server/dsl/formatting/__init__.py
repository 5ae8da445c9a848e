"""The formatter: tokens to a tree of items with their comments, and that tree to text.

It works on tokens, not on the syntax tree, so it can neither lose a comment nor change a spelling:
the tokens of the result are those of the source, but for commas.
"""
