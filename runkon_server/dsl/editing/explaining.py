"""What there is to say about a step, an input or a workflow, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.editing.collection import Collection
    from runkon_server.dsl.editing.document import Declaration, Document, Step

_SHOWN_MAX: Final = 12


def explain_step(key: str, document: Document, collection: Collection) -> str:
    """Which steps answer to a key, and which markers are asked of them."""
    steps = list(steps_of(key, document, collection))
    if not steps:
        return f"No step `{key}` is known here."
    lines = [
        f"Step `{key}`: {_head(step, where)}, line {_line(step, where)}"
        + ("" if where is document else f" of workflow `{where.name}`")
        for step, where in steps[:_SHOWN_MAX]
    ]
    if len(steps) > _SHOWN_MAX:
        lines.append(f"and {len(steps) - _SHOWN_MAX} more")
    markers = [f"`{marker}`" for marker in document.markers.get(key, ()) if marker]
    if markers:
        lines.append(f"Markers asked of it: {', '.join(markers)}")
    return "  \n".join(lines)


def steps_of(
    key: str, document: Document, collection: Collection
) -> Iterator[tuple[Step, Document]]:
    """The steps a condition means by a key: those of the text, else those of workflows it calls."""
    own = document.steps_by_key.get(key)
    if own is not None:
        yield from ((step, document) for step in own)
        return
    called = dict.fromkeys(step.key for step in document.steps if step.block.child == step.key)
    for name in called:
        held = collection.holder(name)
        if held is not None:
            yield from ((step, held[1]) for step in held[1].steps_by_key.get(key, ()))


def explain_marker(marker: str, step: str, document: Document, collection: Collection) -> str:
    """Where a marker comes from."""
    about = explain_step(step, document, collection)
    return f"Marker `{marker}`: set by whoever executes the step.\n\n{about}"


def explain_input(declared: Declaration) -> str:
    """How an input is declared."""
    modifiers = declared.modifiers
    words = ["boolean"] if declared.is_boolean else ["text"]
    default = modifiers.get("default")
    if default is not None:
        words.append(f'default `"{default}"`')
    elif not declared.is_boolean:
        words.append("required")
    about = modifiers.get("description")
    head = f"Input `{declared.name.text}`: {', '.join(words)}"
    return f"{head}\n\n{about}" if about else head


def explain_workflow(document: Document) -> str:
    """Title, description and inputs of a workflow."""
    meta: dict[str, str] = {}
    for block in document.structure.blocks():
        if block.construct == "meta":
            meta |= block.values
    parts = [f"Workflow `{document.name}`"]
    if meta.get("title"):
        parts[0] += f": {meta['title']}"
    if meta.get("description"):
        parts.append(meta["description"])
    if document.inputs:
        parts.append("\n".join(_listed(declared) for declared in document.inputs.values()))
    return "\n\n".join(parts)


def _listed(declared: Declaration) -> str:
    first = explain_input(declared).partition("\n")[0]
    return f"* {first.removeprefix('Input ')}"


def _head(step: Step, document: Document) -> str:
    block = step.block
    head = " ".join(document.text[block.start : block.head_end].split())
    return f"`{head.replace('`', ' ')}`"


def _line(step: Step, document: Document) -> int:
    return document.tokens.source.position(step.name.start)[0]
