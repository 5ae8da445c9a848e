"""The workflow language: text to tokens to syntax tree, and everything said about the tree.

Pure: no clock, no chance, no files, no I/O of any kind. Problems are values (`Diagnostic`),
never exceptions: whatever text comes in, a list of diagnostics comes out.
"""
