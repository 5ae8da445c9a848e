"""Faults made on purpose, each of which the tests must notice; `python3 dev.py mutants NAME`."""
