"""The schema's steps, one module each, in the order of their numbers."""
