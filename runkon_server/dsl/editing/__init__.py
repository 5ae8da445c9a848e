"""What an editor asks about workflows: completions, hovers, definitions, symbols, fixes.

Everything is a function of texts and an offset. A text in an editor is broken most of the time, so
nothing here relies on the syntax tree: `structure.py` reads the tokens of any text in one tolerant
pass, and says which blocks there are and what each word is for.
"""
