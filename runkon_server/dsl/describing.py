"""What every word of the language is for, in sentences: for editors and for the reference.

`keys.py` holds the facts about an option (what its value is, its default, a phrase about it); this
module holds what one wants to read when that is not enough. Texts are Markdown.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.keys import KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.dsl.keys import Key

KEYWORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "workflow": "`workflow NAME { … }` is the whole of a file; after `call` it starts another"
        " workflow as one step of this one.",
        "meta": "Title, description and labels of the workflow. It changes nothing in a run.",
        "inputs": "Declares the values a run is started with, or gives a called workflow its"
        " values. All values are texts.",
        "call": "One task for a worker: an action by its name, or an agent by its path in quotes."
        " Its result is known by that name.",
        "if": "Runs its block when the newest result of a step has a marker (`step.marker`), or"
        " when a boolean input is true. There is no `else`; use `unless` with the same condition.",
        "unless": "Runs its block when the condition does not hold: the opposite of `if`.",
        "while": "Tests `step.marker` before each pass and repeats its block as long as it holds."
        " Behind the block of a `do` it tests after each pass.",
        "do": "`do { … } while step.marker` repeats its block, testing after each pass; without the"
        " `while` it is a group.",
        "parallel": "Starts all its calls together and ends when all have ended. Results apply in"
        " the order in which the calls are written.",
        "gate": "`gate TYPE { … }` waits for a decision, without holding anything meanwhile.",
        "always": "Directly in the workflow: runs whatever became of the body, with the outcome in"
        " `workflow_status`. Inside another block it is an ordinary sequence.",
        "script": "`script NAME { run = … }` runs a shell command on a worker that allows it.",
        "foreach": "`foreach NAME { … }` starts a run of a workflow for each item of a provider.",
        "required": "The run is refused when this input is not given. That is so for any input that"
        " has no default and is not boolean.",
        "default": "`default = …` is the value of the input when none is given.",
        "description": "`description = …` says what the input is for.",
        "boolean": "The input is `true` or `false`, and `false` when it is not given. Only boolean"
        " inputs can be conditions by themselves.",
    }
)
"""Keyword → what it is for."""

GATE_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "human_approval": "People approve or reject.",
        "human_review": "People approve or reject, and may select options and leave feedback, which"
        " the next steps find in `gate_feedback`.",
        "pr_approval": "Waits until the pull request has its approvals.",
        "pr_checks": "Waits until the checks of the pull request are green.",
        "quality_gate": "Never waits: passes when the `confidence` in a step's structured output"
        " reaches the threshold.",
    }
)
"""The types of gates the language itself knows; servers may know others."""

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "workflow_run_id": "The id of the run.",
        "prior_context": "The context of the newest step that has completed; empty at first.",
        "prior_contexts": "All contexts so far as a JSON array, oldest first.",
        "prior_output": "The newest structured output, as JSON.",
        "prior_output_file": "The path of the newest output file.",
        "gate_feedback": "What the last gate was answered with: the options selected, or else the"
        " feedback.",
        "dry_run": "`true` when the run is a rehearsal, else `false`.",
        "workflow_status": "In `always`: how the body ended, `completed`, `failed` or `cancelled`.",
        "failed_step": "For the agent of `on_fail`: the step that failed.",
        "failure_reason": "For the agent of `on_fail`: its last error.",
        "retry_count": "For the agent of `on_fail`: the number of its `retries`.",
    }
)
"""Variable that the engine sets → what it holds."""

SCHEMA_MARKERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "has_findings": "The list `findings` of the structured output is not empty.",
        "has_critical_findings": "A finding has the `severity` `critical`.",
        "has_high_findings": "A finding has the `severity` `high`.",
        "not_approved": "The field `approved` of the structured output is false.",
    }
)
"""The markers of a step whose output schema declares none."""

_FAIL: Final = "The run's body ends, and the run fails."
_CONTINUE: Final = "The run goes on behind it."
WORDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("trigger", "manual"): "Somebody starts it.",
        ("trigger", "pr"): "Meant for pull requests; only stored, nothing starts it by itself.",
        ("trigger", "scheduled"): "Meant for a schedule; only stored, nothing starts it by itself.",
        ("on_fail", "continue"): "The step counts as skipped, and the run goes on.",
        ("on_fail", "fail"): _FAIL,
        ("on_timeout", "fail"): _FAIL,
        ("on_timeout", "continue"): _CONTINUE,
        ("on_max_iter", "fail"): _FAIL,
        ("on_max_iter", "continue"): _CONTINUE,
        ("mode", "min_approvals"): "Counts approvals until there are `min_approvals` of them.",
        ("mode", "review_decision"): "Takes the forge's own verdict on the review.",
        ("fail_fast", "true"): "The others are stopped as soon as success is out of reach.",
        ("fail_fast", "false"): "The others run to their end, whatever became of one of them.",
        ("exclude_starter", "true"): "Whoever started the run cannot decide.",
        ("exclude_starter", "false"): "Whoever started the run may decide too.",
        ("ordered", "true"): "An item starts when all it depends on have completed.",
        ("ordered", "false"): "Items are taken in any order.",
        ("on_cycle", "fail"): "The step fails.",
        ("on_cycle", "warn"): "The step goes on with the other items.",
        (
            "on_child_fail",
            "halt",
        ): "No further child is started, and those that run are cancelled. The step has failed.",
        (
            "on_child_fail",
            "continue",
        ): "The others go on. The step succeeds if at least one child did.",
        (
            "on_child_fail",
            "skip_dependents",
        ): "Items that depend on the failed one, directly or not,"
        " are skipped; needs `ordered = true`.",
    }
)
"""Option and one of the words it may be → what that means."""

_DETAILS: Final[Mapping[str, str]] = {
    "title": "Shown instead of the name in lists and pictures.",
    "description": "A sentence or two for people who look for a workflow.",
    "trigger": "Only stored; whoever wants a schedule starts runs through the API.",
    "targets": "A label such as `repo` or `ticket`; a host may allow only certain ones.",
    "group": "Displays put workflows with the same label together.",
    "retries": "`retries = 2` makes up to three attempts. They follow at once unless `retry_delay`"
    " says otherwise.",
    "retry_delay": 'Doubles with each further retry, up to 5 minutes: `retry_delay = "5s"`.',
    "on_fail": "Without it the run's body ends and the run fails. `continue` goes on instead; an"
    " agent is called once, with `failed_step`, `failure_reason` and `retry_count`, and the step"
    " fails all the same.",
    "as": "Handed to whoever executes the step, who decides what it stands for.",
    "output": "Names the schema that the structured output must follow.",
    "with": "Texts that are added to the agent's prompt, in this order.",
    "plugin_dirs": "Handed to the worker as it is.",
    "timeout": 'Bounds one attempt, at most 24 hours: `timeout = "10m"`. An attempt that ran out of'
    " time is retried like any other that failed.",
    "max_turns": "Handed to the worker, which may stop an agent there.",
    "inputs": "One entry for each input the other workflow declares; placeholders are filled in.",
    "fail_fast": "With `false` every call runs to its end, and all results are there.",
    "min_success": "Calls that are skipped count as successes.",
    "name": "Two of the same name cannot be told apart.",
    "if": "A call that is skipped counts as a success. The step must have run before the block.",
    "max_iterations": "A loop without a limit would be a run without an end.",
    "stuck_after": "The loop does not get anywhere when the step it looks at leaves the same"
    " markers pass after pass.",
    "on_max_iter": "`fail` ends the run's body; `continue` goes on behind the loop.",
    "prompt": "Shown as it is: placeholders are not filled in.",
    "on_timeout": "There is no word for approving: nobody's silence is a yes.",
    "options": "The options selected, joined with commas, reach the next steps as `gate_feedback`.",
    "approvers": "Everybody counts once; one rejection is enough to end the run's body.",
    "exclude_starter": "For the rule that nobody approves their own change.",
    "min_approvals": "Counts approvals of the pull request; how many people must answer a gate is"
    " `approvers`.",
    "mode": "With `review_decision` there is nothing to count, so no `min_approvals`.",
    "source": "A step whose structured output has the number `confidence`, from 0 to 100.",
    "threshold": "The gate passes when the confidence is at least this.",
    "run": "Placeholders become references to environment variables, quoted for the shell; one"
    " without a value fails the step.",
    "env": "Values may hold placeholders. Variables that decide which programs and libraries are"
    " loaded, such as `PATH`, are left out.",
    "over": "`list` takes its items from an input of the run, `workflow_runs` finds runs; workers"
    " serve others.",
    "max_parallel": "The next child starts when one of them has ended.",
    "workflow": "It gets the values of `inputs`, in which `{{item.id}}` stands for the item.",
    "scope": "What may stand here depends on the provider.",
    "filter": "What may stand here depends on the provider; some demand one.",
    "ordered": "Needs a provider that knows which item waits for which.",
    "on_cycle": "Only items with an order can block each other.",
    "on_child_fail": "A failed child fails the step only if this says so, or if none succeeded.",
}
_SPECIAL: Final[Mapping[tuple[str, str], str]] = {
    ("parallel", "name"): "The markers of all calls together answer to it: `if reviews.open`.",
    ("gate quality_gate", "on_fail"): "`fail` ends the run's body; `continue` goes on.",
    **{
        (construct, "timeout"): 'At most 90 days, in whole seconds: `timeout = "12h"`.'
        for construct in KEYS
        if construct.startswith("gate")
    },
}


def describe_key(construct: str, name: str) -> str | None:
    """What an option does, in sentences; None if the construct (a row of `KEYS`) has none such."""
    key = KEYS.get(construct, {}).get(name)
    if key is None:
        return None
    text = _SPECIAL.get((construct, name)) or _DETAILS[name]
    return f"{key.doc[0].upper()}{key.doc[1:]}. {text}"


def words_of(key: Key) -> tuple[str, ...]:
    """The words an option may be, if there are only so many."""
    return tuple(key.kind.split(" | ")) if " | " in key.kind else ()
