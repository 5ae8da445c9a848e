"""Garbage for the parts that read what users write; `python3 dev.py fuzz NAME`."""
