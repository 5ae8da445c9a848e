"""The contract of Runkon: .proto files and what `tools/gen.py` makes of them."""
