"""Whether a history kept the promises: what was seen, the invariants, and what has to occur.

The simulation of the tests, the chaos rig and the failpoint sweep gather `evidence` and give it to
`invariants.check`; so does `python -m runkon_server.verify ARCHIVE`, long after.
"""
