"""Syntax tree to JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from runkon_server.dsl.ast import (
    AgentRef,
    Always,
    ApprovalMode,
    BoolInput,
    Call,
    CallWorkflow,
    ContinueOnFail,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Parallel,
    ParallelCall,
    Policy,
    QualityGate,
    Script,
    StepField,
    StepMarker,
    Unless,
    While,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.dsl.ast import Condition, Definition, Input, Node, OnFail, Pairs
    from runkon_server.dsl.durations import Duration

Json: TypeAlias = dict[str, Any]


def dump(definition: Definition) -> str:
    """The definition as compact JSON, without a line break."""
    document = {
        "name": definition.name,
        "title": definition.title,
        "description": definition.description,
        "trigger": definition.trigger,
        "targets": definition.targets,
        "group": definition.group,
        "inputs": [_input(each) for each in definition.inputs],
        "body": _nodes(definition.body),
        "always": _nodes(definition.always),
        "source_path": definition.source_path,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _input(declared: Input) -> Json:
    return {
        "name": declared.name,
        "required": declared.required,
        "default": declared.default,
        "description": declared.description,
        "input_type": declared.input_type,
    }


def _nodes(nodes: tuple[Node, ...]) -> list[Json]:
    return [_node(node) for node in nodes]


def _node(node: Node) -> Json:
    match node:
        case Call():
            return _call(node)
        case CallWorkflow():
            return _call_workflow(node)
        case If():
            return _branching("if", node.condition, node.body)
        case Unless():
            return _branching("unless", node.condition, node.body)
        case While():
            return _loop("while", node)
        case DoWhile():
            return _loop("do_while", node)
        case Do():
            return {
                "type": "do",
                "output": node.output,
                "with": node.with_,
                "body": _nodes(node.body),
            }
        case Parallel():
            return _parallel(node)
        case Gate():
            return _gate(node)
        case QualityGate():
            return _quality_gate(node)
        case Always():
            return {"type": "always", "body": _nodes(node.body)}
        case Script():
            return _script(node)
        case ForEach():
            return _for_each(node)


def _call(node: Call) -> Json:
    return {
        "type": "call",
        "agent": _agent(node.agent),
        "retries": node.retries,
        "on_fail": _on_fail(node.on_fail),
        "output": node.output,
        "with": node.with_,
        "as_identity": node.as_identity,
        "plugin_dirs": node.plugin_dirs,
        "timeout": None if node.timeout is None else node.timeout.text,
        "max_turns": node.max_turns,
        **_retry_delay(node.retry_delay),
    }


def _call_workflow(node: CallWorkflow) -> Json:
    return {
        "type": "call_workflow",
        "workflow": node.workflow,
        "inputs": dict(node.inputs),
        "retries": node.retries,
        "on_fail": _on_fail(node.on_fail),
        "as_identity": node.as_identity,
        **_retry_delay(node.retry_delay),
    }


def _branching(tag: str, condition: Condition, body: tuple[Node, ...]) -> Json:
    return {"type": tag, "condition": _condition(condition), "body": _nodes(body)}


def _loop(tag: str, node: While | DoWhile) -> Json:
    return {
        "type": tag,
        "step": node.condition.step,
        "marker": node.condition.marker,
        "max_iterations": node.max_iterations,
        "stuck_after": node.stuck_after,
        "on_max_iter": node.on_max_iter,
        "body": _nodes(node.body),
    }


def _parallel(node: Parallel) -> Json:
    def by_index(value_of: Callable[[ParallelCall], object]) -> Json:
        values = ((str(index), value_of(call)) for index, call in enumerate(node.calls))
        return {index: value for index, value in values if value is not None}

    document = {
        "type": "parallel",
        "fail_fast": node.fail_fast,
        "min_success": node.min_success,
        "calls": [_agent(call.agent) for call in node.calls],
        "output": node.output,
        "call_outputs": by_index(lambda call: call.output),
        "with": node.with_,
        "call_with": by_index(lambda call: call.with_),
        "call_if": by_index(lambda call: _marker_pair(call.condition)),
        "call_retries": by_index(lambda call: call.retries),
    }
    if node.name is not None:
        document["name"] = node.name
    delays = by_index(lambda call: None if call.retry_delay is None else call.retry_delay.text)
    if delays:
        document["call_retry_delay"] = delays
    return document


def _gate(node: Gate) -> Json:
    document = {
        "type": "gate",
        "name": node.name,
        "gate_type": node.gate_type,
        "prompt": node.prompt,
        "min_approvals": node.min_approvals,
        "approval_mode": node.approval_mode,
        "timeout_secs": node.timeout_s,
        "on_timeout": node.on_timeout,
        "as_identity": node.as_identity,
        "options": _options(node.options),
    }
    if node.approvers != 1:
        document["approvers"] = node.approvers
    if node.exclude_starter:
        document["exclude_starter"] = True
    return document


def _options(options: Pairs | StepField | None) -> Json | str | None:
    if isinstance(options, StepField):
        return f"{options.step}.{options.field}"
    return None if options is None else dict(options)


def _quality_gate(node: QualityGate) -> Json:
    return {
        "type": "gate",
        "name": node.name,
        "gate_type": "quality_gate",
        "prompt": None,
        "min_approvals": 1,
        "approval_mode": ApprovalMode.MIN_APPROVALS,
        "timeout_secs": 0,
        "on_timeout": Policy.FAIL,
        "as_identity": node.as_identity,
        "source": node.source,
        "threshold": node.threshold,
        "on_fail_action": node.on_fail,
        "options": None,
    }


def _script(node: Script) -> Json:
    return {
        "type": "script",
        "name": node.name,
        "run": node.run,
        "env": dict(node.env),
        "timeout": node.timeout_s,
        "retries": node.retries,
        "on_fail": _on_fail(node.on_fail),
        "as_identity": node.as_identity,
        **_retry_delay(node.retry_delay),
    }


def _for_each(node: ForEach) -> Json:
    return {
        "type": "for_each",
        "name": node.name,
        "over": node.over,
        "scope": None if node.scope is None else dict(node.scope),
        "filter": dict(node.filter),
        "ordered": node.ordered,
        "on_cycle": node.on_cycle,
        "max_parallel": node.max_parallel,
        "workflow": node.workflow,
        "inputs": dict(node.inputs),
        "on_child_fail": node.on_child_fail,
    }


def _agent(agent: AgentRef) -> Json:
    return {"kind": agent.kind, "value": agent.value}


def _on_fail(on_fail: OnFail | None) -> Json | None:
    match on_fail:
        case None:
            return None
        case ContinueOnFail():
            return {"kind": "continue"}
        case AgentRef():
            return {"kind": "agent", "value": _agent(on_fail)}


def _condition(condition: Condition) -> Json:
    match condition:
        case StepMarker():
            return {"kind": "step_marker", "step": condition.step, "marker": condition.marker}
        case BoolInput():
            return {"kind": "bool_input", "input": condition.name}


def _marker_pair(condition: StepMarker | None) -> tuple[str, str] | None:
    return None if condition is None else (condition.step, condition.marker)


def _retry_delay(delay: Duration | None) -> Json:
    return {} if delay is None else {"retry_delay": delay.text}
