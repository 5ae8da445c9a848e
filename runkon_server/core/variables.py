"""What a task is told about its run: inputs, engine variables, contexts, exported outputs.

Source: engine.md §4 of the language's specification, with its engine names and declared inputs
reserved.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.model import Memory
from runkon_server.dsl import limits
from runkon_server.dsl.reserved import ENGINE_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runkon_server.core.bubbling import ChildResults
    from runkon_server.core.model import Completion, RunState
    from runkon_server.core.plan import Plan
    from runkon_server.core.records import RunRecord

PRIOR_CONTEXTS_BYTES: Final = 16 * 1024
"""Above this a task goes without `prior_contexts`, else long runs would grow quadratically."""
EXPORTS_BYTES: Final = 512 * 1024
"""All exports of a run together; an export that would not fit is left out."""
_OWN_FIELDS: Final = frozenset({"markers", "context"})


def fixed_variables(run: RunRecord) -> dict[str, str]:
    """The variables that never change in a run. An input with an engine's name is not seen."""
    values = {name: value for name, value in run.inputs.items() if name not in ENGINE_VARIABLES}
    values["workflow_run_id"] = run.run_id
    values["dry_run"] = "true" if run.dry_run else "false"
    return values


def reserved_names(plan: Plan, run: RunRecord) -> frozenset[str]:
    """Names that no step may export."""
    return ENGINE_VARIABLES | plan.declared | run.inputs.keys()


def task_variables(state: RunState) -> dict[str, str]:
    """The variable map of a task that starts now; a new dictionary."""
    memory = state.memory
    values = {**state.setup.variables, **memory.exports, "prior_context": memory.prior_context}
    if memory.gate_feedback is not None:
        values["gate_feedback"] = memory.gate_feedback
    if memory.prior_output is not None:
        values["prior_output"] = memory.prior_output
    if memory.prior_output_file is not None:
        values["prior_output_file"] = memory.prior_output_file
    if state.outcome is not None:
        values["workflow_status"] = state.outcome
    return values


def text_variables(state: RunState) -> dict[str, str]:
    """The variables for a text that the server expands now: those of a task and `prior_contexts`.

    The latter is missing when it is too long.
    """
    values = task_variables(state)
    contexts = prior_contexts(state.memory)
    if contexts is not None:
        values["prior_contexts"] = contexts
    return values


def prior_contexts(memory: Memory) -> str | None:
    """All context entries as a JSON array; None when they are too long to be sent along."""
    return None if memory.contexts is None else f"[{memory.contexts}]"


def remember(
    memory: Memory, reserved: frozenset[str], step: str, iteration: int, done: Completion
) -> Memory:
    """The memory with one more context entry, that of a completed step.

    Args:
        memory: what was remembered before.
        reserved: names that must not be exported.
        step: key of the step.
        iteration: pass of the innermost loop around it.
        done: what it says.
    """
    exports = memory.exports
    if done.structured_output is not None:
        exports = _with_exports(exports, done.structured_output, reserved)
    return Memory(
        done.context,
        _with_entry(memory.contexts, step, iteration, done),
        memory.prior_output if done.structured_output is None else done.structured_output,
        memory.prior_output_file if done.output_file is None else done.output_file,
        exports,
        memory.gate_feedback,
    )


def absorb_results(memory: Memory, reserved: frozenset[str], results: ChildResults) -> Memory:
    """The memory with what a child run told its own steps."""
    return Memory(
        results.context,
        _joined(memory.contexts, results.contexts),
        memory.prior_output if results.prior_output is None else results.prior_output,
        memory.prior_output_file
        if results.prior_output_file is None
        else results.prior_output_file,
        merge_exports(memory.exports, results.exports.items(), reserved),
        memory.gate_feedback,
    )


def _joined(contexts: str | None, more: str | None) -> str | None:
    """Two lists of context entries as one; None if they are too long to be sent along."""
    if contexts is None or more is None:
        return None
    joined = f"{contexts},{more}" if contexts and more else contexts or more
    return joined if _size(joined) + 2 <= PRIOR_CONTEXTS_BYTES else None


def _with_entry(contexts: str | None, step: str, iteration: int, done: Completion) -> str | None:
    if contexts is None:
        return None
    texts = len(done.context) + len(done.structured_output or "")
    if len(contexts) + texts > PRIOR_CONTEXTS_BYTES:
        return None  # without rendering what may be a megabyte
    markers = ",".join(map(_quoted, done.markers))
    output, file = map(_quoted_or_null, (done.structured_output, done.output_file))
    entry = (
        f'{{"step":{_quoted(step)},"iteration":{iteration},"context":{_quoted(done.context)},'
        f'"markers":[{markers}],"structured_output":{output},"output_file":{file}}}'
    )
    joined = f"{contexts},{entry}" if contexts else entry
    return joined if _size(joined) + 2 <= PRIOR_CONTEXTS_BYTES else None


def _quoted_or_null(text: str | None) -> str:
    return "null" if text is None else _quoted(text)


def _with_exports(exports: dict[str, str], output: str, reserved: frozenset[str]) -> dict[str, str]:
    fields = output_fields(output)
    return exports if fields is None else merge_exports(exports, _exportable(fields), reserved)


def merge_exports(
    exports: dict[str, str], more: Iterable[tuple[str, str]], reserved: frozenset[str]
) -> dict[str, str]:
    """The exports with more of them, later ones winning; a new dictionary if that changes any."""
    result, room = exports, 0
    for name, value in more:
        old = result.get(name)
        if name in reserved or old == value:
            continue
        if result is exports:
            result = dict(exports)
            room = EXPORTS_BYTES - sum(_size(key) + _size(text) for key, text in exports.items())
        needed = _size(value) + (_size(name) if old is None else -_size(old))
        if needed <= room:
            result[name] = value
            room -= needed
    return result


def _exportable(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    markers = fields.get("markers", [])
    is_flow_output = (
        isinstance(markers, list)
        and all(isinstance(marker, str) for marker in markers)
        and isinstance(fields.get("context", ""), str)
    )
    for name, value in fields.items() if is_flow_output else ():
        if name in _OWN_FIELDS or not isinstance(value, str) or len(name) > limits.NAME_LENGTH:
            continue
        if is_storable(name) and is_storable(value):
            yield name, value


def output_fields(output: str) -> dict[str, Any] | None:
    """A structured output as an object; None if it is none, or no JSON."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_storable(text: str) -> bool:
    """Whether the database takes it: escapes in JSON can spell what no text may hold."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
