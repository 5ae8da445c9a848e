"""Every option of every construct, for warnings about unknown ones and for what editors show."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Key(NamedTuple):
    """One option of one construct."""

    kind: str
    """What its value is, in words, or the words it may be."""
    default: str | None
    """As it would be written; None: absent, or required."""
    doc: str
    required: bool = False


_RETRIES = Key("whole number up to 20", "0", "further attempts after the first one fails")
_RETRY_DELAY = Key("duration", None, "wait before the first retry; doubles with each further one")
_ON_FAIL = Key("continue, or an agent", None, "what follows when every attempt has failed")
_AS = Key("text", None, "the identity to run as")
_OUTPUT = Key("text", None, "the schema of the structured output")
_WITH = Key("list", None, "prompt snippets to add")
_MAX_ITERATIONS = Key("whole number up to 1000", None, "passes after which it stops", required=True)
_STUCK_AFTER = Key("whole number", None, "fail after this many passes with the same markers")
_ON_MAX_ITER = Key("fail | continue", "fail", "what follows when all passes are used up")
_GATE_NAME = Key("name", None, "the gate's name; without it, its type")

_HUMAN_GATE = {
    "prompt": Key("text", None, "shown to the people who decide"),
    "timeout": Key("duration", "24h", "how long the gate waits"),
    "on_timeout": Key("fail | continue", "fail", "what follows when nobody decided in time"),
    "as": _AS,
    "options": Key("list, map or step.field", None, "what can be selected on approval"),
    "name": _GATE_NAME,
    "approvers": Key("whole number", "1", "how many different people have to approve"),
    "exclude_starter": Key("true | false", "false", "bar whoever started the run from deciding"),
}
_PULL_REQUEST_GATE = {
    key: _HUMAN_GATE[key] for key in ("prompt", "timeout", "on_timeout", "as", "name")
}
_APPROVALS = {
    "min_approvals": Key("whole number", "1", "approvals the pull request needs"),
    "mode": Key("min_approvals | review_decision", "min_approvals", "what counts as approved"),
}
_WHILE = {
    "max_iterations": _MAX_ITERATIONS,
    "stuck_after": _STUCK_AFTER,
    "on_max_iter": _ON_MAX_ITER,
}

KEYS: Final[Mapping[str, Mapping[str, Key]]] = MappingProxyType(
    {
        "meta": {
            "title": Key("text", None, "name to display"),
            "description": Key("text", '""', "what the workflow is for"),
            "trigger": Key("manual | pr | scheduled", "manual", "what is meant to start it"),
            "targets": Key("list", None, "kinds of things it works on"),
            "group": Key("text", None, "label to group it under"),
        },
        "call": {
            "retries": _RETRIES,
            "retry_delay": _RETRY_DELAY,
            "on_fail": _ON_FAIL,
            "as": _AS,
            "output": _OUTPUT,
            "with": _WITH,
            "plugin_dirs": Key("list", None, "further plugin directories"),
            "timeout": Key("duration", None, "how long one attempt may take"),
            "max_turns": Key("whole number", None, "turns an agent may take"),
        },
        "call workflow": {
            "inputs": Key("map", None, "input values for the child run"),
            "retries": _RETRIES,
            "retry_delay": _RETRY_DELAY,
            "on_fail": _ON_FAIL,
            "as": _AS,
        },
        "parallel": {
            "fail_fast": Key(
                "true | false", "true", "stop the others when success is out of reach"
            ),
            "min_success": Key("whole number", None, "calls that have to succeed; without it, all"),
            "output": _OUTPUT,
            "with": _WITH,
            "name": Key("name", None, "step key of the merged result"),
        },
        "parallel call": {
            "output": _OUTPUT,
            "with": _WITH,
            "retries": _RETRIES,
            "retry_delay": _RETRY_DELAY,
            "if": Key("step.marker in quotes or bare", None, "skip the call unless this holds"),
        },
        "workflow": {},
        "always": {},
        "if": {},
        "unless": {},
        "while": _WHILE,
        "do … while": _WHILE,
        "do": {"output": _OUTPUT, "with": _WITH},
        "script": {
            "run": Key("text", None, "the command", required=True),
            "env": Key("map", None, "further environment variables"),
            "timeout": Key("duration", None, "how long one attempt may take"),
            "retries": _RETRIES,
            "retry_delay": _RETRY_DELAY,
            "on_fail": _ON_FAIL,
            "as": _AS,
        },
        "foreach": {
            "over": Key("text", None, "the provider of the items", required=True),
            "max_parallel": Key(
                "whole number up to 256", None, "children at a time", required=True
            ),
            "workflow": Key("name", None, "the workflow to run for each item", required=True),
            "scope": Key("map", None, "where the provider looks"),
            "filter": Key("map", None, "which items it takes"),
            "inputs": Key("map", None, "input values for each child run"),
            "ordered": Key("true | false", "false", "respect the items' dependencies"),
            "on_cycle": Key("fail | warn", "fail", "what follows when items block each other"),
            "on_child_fail": Key(
                "halt | continue | skip_dependents", "continue", "what follows a failed child"
            ),
        },
        "gate": {**_HUMAN_GATE, **_APPROVALS},
        "gate human_approval": _HUMAN_GATE,
        "gate human_review": _HUMAN_GATE,
        "gate pr_approval": {**_PULL_REQUEST_GATE, **_APPROVALS},
        "gate pr_checks": _PULL_REQUEST_GATE,
        "gate quality_gate": {
            "source": Key("step key", None, "the step whose confidence counts", required=True),
            "threshold": Key("whole number up to 100", None, "confidence needed", required=True),
            "on_fail": Key("fail | continue", "fail", "what follows below the threshold"),
            "as": _AS,
            "name": _GATE_NAME,
        },
    }
)
"""Construct → option → what it is. `gate` alone holds what gates of unknown types may have."""
