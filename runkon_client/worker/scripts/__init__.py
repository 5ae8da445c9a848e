"""Scripts of `script` steps, run on the worker's machine: see `open_scripts`.

Nothing in here knows of servers and tasks.
"""

from runkon_client.worker.scripts.opening import open_scripts
from runkon_client.worker.scripts.runner import ScriptRunner
from runkon_client.worker.scripts.sandbox import (
    NO_SANDBOX,
    Sandbox,
    SandboxMissingError,
    SandboxMode,
    View,
    find_sandbox,
)
from runkon_client.worker.scripts.script import Script, ScriptLimits, ScriptOutcome

__all__ = [
    "NO_SANDBOX",
    "Sandbox",
    "SandboxMissingError",
    "SandboxMode",
    "Script",
    "ScriptLimits",
    "ScriptOutcome",
    "ScriptRunner",
    "View",
    "find_sandbox",
    "open_scripts",
]
