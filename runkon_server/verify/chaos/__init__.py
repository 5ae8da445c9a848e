"""The chaos rig: a whole service as processes, harm done to it by a schedule, and a verdict.

`runs the load → nemesis → heal → drain → gather → check → report`; every part can be used alone.
"""
