"""JSON to syntax tree."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.ast import (
    AgentKind,
    AgentRef,
    Always,
    ApprovalMode,
    BoolInput,
    Call,
    CallWorkflow,
    ContinueOnFail,
    Definition,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Input,
    InputType,
    OnChildFail,
    OnCycle,
    Parallel,
    ParallelCall,
    Policy,
    QualityGate,
    Script,
    StepField,
    StepMarker,
    Trigger,
    Unless,
    While,
)
from runkon_server.dsl.snapshots.records import Record, SnapshotError, pairs, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runkon_server.dsl.ast import Condition, Node, OnFail, Pairs

_DEPTH_MAX: Final = 100
"""Older versions had no limit of their own; this one only keeps the stack whole."""
_MARKER_PAIR: Final = 2
_THRESHOLD_MAX: Final = 100


def load(text: str) -> Definition:
    """Read a snapshot.

    Raises:
        SnapshotError: the text is no snapshot; the message names the first wrong field.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise SnapshotError("the snapshot is not JSON") from None
    record = Record(value, "")
    return Definition(
        name=record.text("name"),
        title=record.text_or_none("title"),
        description=record.text("description"),
        trigger=record.word("trigger", Trigger),
        targets=record.texts("targets"),
        group=record.text_or_none("group"),
        inputs=tuple(_input(each) for each in record.records("inputs")),
        body=_nodes(record, "body", 0),
        always=_nodes(record, "always", 0),
        source_path=record.text("source_path"),
    )


def _input(record: Record) -> Input:
    return Input(
        name=record.text("name"),
        required=record.flag("required"),
        default=record.text_or_none("default"),
        description=record.text_or_none("description"),
        input_type=record.word("input_type", InputType, InputType.STRING),
    )


def _nodes(record: Record, key: str, depth: int) -> tuple[Node, ...]:
    if depth > _DEPTH_MAX:
        raise record.fail(key, "is nested too deeply")
    return tuple(_node(each, depth) for each in record.records(key))


def _node(record: Record, depth: int) -> Node:
    tag = record.text("type")
    if tag in _LEAVES:
        return _LEAVES[tag](record)
    if tag in _CONTAINERS:
        return _CONTAINERS[tag](record, _nodes(record, "body", depth + 1))
    raise record.fail("type", f"is {tag!r}, which is no kind of step")


def _call(record: Record) -> Call:
    return Call(
        agent=_agent(record.record("agent")),
        retries=record.number("retries", 0),
        on_fail=_on_fail(record),
        output=record.text_or_none("output"),
        with_=record.texts("with"),
        as_identity=_identity(record),
        plugin_dirs=record.texts("plugin_dirs"),
        timeout=record.duration_or_none("timeout"),
        max_turns=record.number_or_none("max_turns"),
        retry_delay=record.duration_or_none("retry_delay"),
    )


def _call_workflow(record: Record) -> CallWorkflow:
    return CallWorkflow(
        workflow=record.text("workflow"),
        inputs=record.pairs("inputs"),
        retries=record.number("retries", 0),
        on_fail=_on_fail(record),
        as_identity=_identity(record),
        retry_delay=record.duration_or_none("retry_delay"),
    )


def _if(record: Record, body: tuple[Node, ...]) -> If:
    return If(condition=_condition(record.record("condition")), body=body)


def _unless(record: Record, body: tuple[Node, ...]) -> Unless:
    return Unless(condition=_condition(record.record("condition")), body=body)


def _while(record: Record, body: tuple[Node, ...]) -> While:
    return While(
        condition=StepMarker(step=record.text("step"), marker=record.text("marker")),
        max_iterations=record.number("max_iterations"),
        stuck_after=record.number_or_none("stuck_after"),
        on_max_iter=record.word("on_max_iter", Policy),
        body=body,
    )


def _do_while(record: Record, body: tuple[Node, ...]) -> DoWhile:
    return DoWhile(
        condition=StepMarker(step=record.text("step"), marker=record.text("marker")),
        max_iterations=record.number("max_iterations"),
        stuck_after=record.number_or_none("stuck_after"),
        on_max_iter=record.word("on_max_iter", Policy),
        body=body,
    )


def _do(record: Record, body: tuple[Node, ...]) -> Do:
    return Do(output=record.text_or_none("output"), with_=record.texts("with"), body=body)


def _always(record: Record, body: tuple[Node, ...]) -> Always:  # noqa: ARG001 - one of a table
    return Always(body=body)


def _parallel(record: Record) -> Parallel:
    agents = [_agent(each) for each in record.records("calls")]
    outputs, withs, conditions, retries, delays = (
        record.by_index(key, len(agents))
        for key in ("call_outputs", "call_with", "call_if", "call_retries", "call_retry_delay")
    )
    calls = tuple(
        ParallelCall(
            agent=agent,
            output=outputs.text_or_none(index),
            with_=withs.texts(index) if index in withs else None,
            retries=retries.number_or_none(index),
            condition=_call_condition(conditions, index),
            retry_delay=delays.duration_or_none(index),
        )
        for index, agent in ((str(number), agent) for number, agent in enumerate(agents))
    )
    return Parallel(
        calls=calls,
        fail_fast=record.flag("fail_fast", default=True),
        min_success=record.number_or_none("min_success"),
        output=record.text_or_none("output"),
        with_=record.texts("with"),
        name=record.text_or_none("name"),
    )


def _call_condition(conditions: Record, index: str) -> StepMarker | None:
    if index not in conditions:
        return None
    pair = texts(conditions.raw(index), f"{conditions.path}.{index}")
    if len(pair) != _MARKER_PAIR:
        raise conditions.fail(index, "must be a step and a marker")
    return StepMarker(step=pair[0], marker=pair[1])


def _gate(record: Record) -> Gate | QualityGate:
    gate_type = record.text("gate_type")
    if gate_type == "quality_gate":
        return _quality_gate(record)
    return Gate(
        name=record.text("name"),
        gate_type=gate_type,
        prompt=record.text_or_none("prompt"),
        min_approvals=record.number("min_approvals", 1),
        approval_mode=record.word("approval_mode", ApprovalMode, ApprovalMode.MIN_APPROVALS),
        timeout_s=record.seconds("timeout_secs"),
        on_timeout=record.word("on_timeout", Policy),
        as_identity=_identity(record),
        options=_options(record),
        approvers=record.number("approvers", 1),
        exclude_starter=record.flag("exclude_starter", default=False),
    )


def _options(record: Record) -> Pairs | StepField | None:
    value = record.raw("options")
    if value is None:
        return None
    if isinstance(value, str):
        step, dot, field = value.partition(".")
        if not dot:
            raise record.fail("options", "must be an object or of the form step.field")
        return StepField(step=step, field=field)
    path = f"{record.path}.options"
    if isinstance(value, list):
        return tuple((text, text) for text in dict.fromkeys(texts(value, path)))
    return pairs(value, path)


def _quality_gate(record: Record) -> QualityGate:
    return QualityGate(
        name=record.text("name"),
        source=record.text("source"),
        threshold=record.number("threshold", at_most=_THRESHOLD_MAX),
        on_fail=record.word("on_fail_action", Policy, Policy.FAIL),
        as_identity=_identity(record),
    )


def _script(record: Record) -> Script:
    return Script(
        name=record.text("name"),
        run=record.text("run"),
        env=record.pairs("env"),
        timeout_s=record.seconds("timeout") if "timeout" in record else None,
        retries=record.number("retries", 0),
        on_fail=_on_fail(record),
        as_identity=_identity(record),
        retry_delay=record.duration_or_none("retry_delay"),
    )


def _for_each(record: Record) -> ForEach:
    return ForEach(
        name=record.text("name"),
        over=record.text("over"),
        scope=record.pairs_or_none("scope"),
        filter=record.pairs("filter"),
        ordered=record.flag("ordered"),
        on_cycle=record.word("on_cycle", OnCycle),
        max_parallel=record.number("max_parallel"),
        workflow=record.text("workflow"),
        inputs=record.pairs("inputs"),
        on_child_fail=record.word("on_child_fail", OnChildFail),
    )


def _agent(record: Record) -> AgentRef:
    return AgentRef(kind=record.word("kind", AgentKind), value=record.text("value"))


def _on_fail(record: Record) -> OnFail | None:
    if "on_fail" not in record:
        return None
    on_fail = record.record("on_fail")
    match on_fail.text("kind"):
        case "continue":
            return ContinueOnFail()
        case "agent":
            return _agent(on_fail.record("value"))
        case _:
            raise on_fail.fail("kind", "must be continue or agent")


def _condition(record: Record) -> Condition:
    match record.text("kind"):
        case "step_marker":
            return StepMarker(step=record.text("step"), marker=record.text("marker"))
        case "bool_input":
            return BoolInput(name=record.text("input"))
        case _:
            raise record.fail("kind", "must be step_marker or bool_input")


def _identity(record: Record) -> str | None:
    """The identity to run as; older versions called the field `bot_name`."""
    return record.text_or_none("as_identity" if "as_identity" in record else "bot_name")


_LEAVES: Final[Mapping[str, Callable[[Record], Node]]] = MappingProxyType(
    {
        "call": _call,
        "call_workflow": _call_workflow,
        "parallel": _parallel,
        "gate": _gate,
        "script": _script,
        "for_each": _for_each,
    }
)
_CONTAINERS: Final[Mapping[str, Callable[[Record, tuple[Node, ...]], Node]]] = MappingProxyType(
    {
        "if": _if,
        "unless": _unless,
        "while": _while,
        "do_while": _do_while,
        "do": _do,
        "always": _always,
    }
)
