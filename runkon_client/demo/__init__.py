"""The guided tour: a server, a worker and one workflow with a gate, all on this machine.

Server and worker are processes of their own, started and stopped by handle.
"""
