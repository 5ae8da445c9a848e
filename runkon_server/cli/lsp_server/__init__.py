"""The thin part of the language server: the protocol on one side, `dsl.editing` on the other."""
