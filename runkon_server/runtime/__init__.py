"""Leases, the committer, actors, the dispatcher of tasks, the listener: everything that runs."""
