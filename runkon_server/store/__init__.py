"""Rows and statements; no transaction is begun or committed here but in `database`."""
