"""What tests of several layers share; `tests/` is on the path, so it is imported as `support`."""
