"""The load of `runkon-server verify`: callers, watchers and workers that write down what they saw.

Each is a process of its own, `python -m runkon_client.verify KIND --help`; the rig that starts
them, does harm to what lies between them and judges their histories belongs to the server.
"""
