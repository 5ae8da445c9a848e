"""From syntax to plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, assert_never

from runkon_server.core import ids
from runkon_server.core.plan import (
    Block,
    CallNode,
    ChildNode,
    ForEachNode,
    GateNode,
    Loop,
    ParallelNode,
    Plan,
    QualityGateNode,
    ScriptNode,
)
from runkon_server.dsl.ast import (
    AgentRef,
    Always,
    Call,
    CallWorkflow,
    ContinueOnFail,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Parallel,
    Policy,
    QualityGate,
    Script,
    StepField,
    StepMarker,
    Unless,
    While,
)
from runkon_server.dsl.queries import agent_key, all_nodes, display_name, step_key
from runkon_server.dsl.shell import read_shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runkon_server.core.outputs_schema import Schema
    from runkon_server.core.plan import PlanNode
    from runkon_server.dsl.ast import Definition, Node, OnFail, ParallelCall
    from runkon_server.dsl.durations import Duration

HUMAN_GATES: Final = frozenset({"human_approval", "human_review"})


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the enclosing `do` blocks say, and the schemas that they may name."""

    schemas: Mapping[str, Schema]
    output: str | None = None
    snippets: tuple[str, ...] = ()

    def inside(self, output: str | None, snippets: tuple[str, ...]) -> _Settings:
        return replace(self, output=output or self.output, snippets=self.snippets + snippets)

    @property
    def schema(self) -> Schema | None:
        return None if self.output is None else self.schemas.get(self.output)


def compile_plan(definition: Definition, schemas: Mapping[str, Schema] | None = None) -> Plan:
    """Make a definition ready to run.

    Args:
        definition: what to run.
        schemas: the output schemas stored with it, by name.

    Raises:
        ValueError: it has numbers too large for `at`.
    """
    settings = _Settings(schemas or {})
    return Plan(
        name=definition.name,
        display_name=display_name(definition),
        body=Block(path="body", children=_nodes(definition.body, "body", settings)),
        always=Block(path="always", children=_nodes(definition.always, "always", settings)),
        watched=frozenset(_watched(definition)),
        option_sources=frozenset(_option_sources(definition)),
        declared=frozenset(each.name for each in definition.inputs),
    )


def _option_sources(definition: Definition) -> Iterator[str]:
    for node in all_nodes(definition):
        if isinstance(node, Gate) and isinstance(node.options, StepField):
            yield node.options.step
        elif isinstance(node, QualityGate):
            yield node.source


def _watched(definition: Definition) -> Iterator[str]:
    for node in all_nodes(definition):
        if isinstance(node, If | Unless | While | DoWhile):
            if isinstance(node.condition, StepMarker):
                yield node.condition.step
        elif isinstance(node, Parallel):
            yield from (call.condition.step for call in node.calls if call.condition is not None)


def _nodes(nodes: Sequence[Node], path: str, settings: _Settings) -> tuple[PlanNode, ...]:
    _fits(len(nodes), path)
    return tuple(_node(node, f"{path}.{n}", settings) for n, node in enumerate(nodes))


def _node(node: Node, path: str, settings: _Settings) -> PlanNode:
    match node:
        case Call():
            return _call(node, path, settings)
        case CallWorkflow():
            return _child(node, path, settings)
        case Script():
            return _script(node, path, settings)
        case If() | Unless():
            return Block(
                path=path,
                children=_nodes(node.body, path, settings),
                condition=node.condition,
                wanted=isinstance(node, If),
            )
        case While() | DoWhile():
            return _loop(node, path, settings)
        case Do():
            inner = settings.inside(node.output, node.with_)
            return Block(path=path, children=_nodes(node.body, path, inner))
        case Always():
            return Block(path=path, children=_nodes(node.body, path, settings))
        case Parallel():
            return _parallel(node, path, settings)
        case Gate():
            return _gate(node, path)
        case QualityGate():
            return _quality_gate(node, path)
        case ForEach():
            return _for_each(node, path)
        case _:
            assert_never(node)


def _call(call: Call, path: str, settings: _Settings) -> CallNode:
    inner = settings.inside(call.output, call.with_)
    return replace(
        _agent(call.agent, path),
        retries=call.retries,
        retry_delay_s=_seconds(call.retry_delay),
        timeout_s=_seconds(call.timeout),
        identity=call.as_identity,
        max_turns=call.max_turns,
        plugin_dirs=tuple(dict.fromkeys(call.plugin_dirs)),
        output_schema=inner.output,
        schema=inner.schema,
        snippets=inner.snippets,
        on_fail=_on_fail(call.on_fail, path, settings),
        tolerated=isinstance(call.on_fail, ContinueOnFail),
    )


def _for_each(each: ForEach, path: str) -> ForEachNode:
    key = step_key(each)
    columns = {"path": path, "step_name": key, "step_key": key, "role": "foreach"}
    return ForEachNode(path=path, name=key, key=key, columns=columns, each=each)


def _on_fail(on_fail: OnFail | None, path: str, settings: _Settings) -> CallNode | None:
    if not isinstance(on_fail, AgentRef):
        return None
    return replace(
        _agent(on_fail, f"{path}.on_fail"),
        output_schema=settings.output,
        schema=settings.schema,
        snippets=settings.snippets,
    )


def _seconds(duration: Duration | None) -> float | None:
    return None if duration is None else duration.seconds


def _child(call: CallWorkflow, path: str, settings: _Settings) -> ChildNode:
    name, key = f"workflow:{call.workflow}", step_key(call)
    return ChildNode(
        path=path,
        name=name,
        key=key,
        workflow=call.workflow,
        columns={"path": path, "step_name": name, "step_key": key, "role": "workflow"},
        inputs=call.inputs,
        retries=call.retries,
        retry_delay_s=_seconds(call.retry_delay),
        identity=call.as_identity,
        on_fail=_on_fail(call.on_fail, path, settings),
        tolerated=isinstance(call.on_fail, ContinueOnFail),
    )


def _script(script: Script, path: str, settings: _Settings) -> ScriptNode:
    key = step_key(script)
    return ScriptNode(
        path=path,
        name=script.name,
        key=key,
        columns={"path": path, "step_name": script.name, "step_key": key, "role": "script"},
        command=read_shell(script.run),
        environment=script.env,
        retries=script.retries,
        retry_delay_s=_seconds(script.retry_delay),
        timeout_s=script.timeout_s,
        identity=script.as_identity,
        on_fail=_on_fail(script.on_fail, path, settings),
        tolerated=isinstance(script.on_fail, ContinueOnFail),
    )


def _agent(agent: AgentRef, path: str) -> CallNode:
    key = agent_key(agent)
    columns = {"path": path, "step_name": agent.value, "step_key": key, "role": "actor"}
    return CallNode(path=path, name=agent.value, key=key, columns=columns)


def _loop(node: While | DoWhile, path: str, settings: _Settings) -> Loop:
    _fits(node.max_iterations, path)
    return Loop(
        path=path,
        children=_nodes(node.body, path, settings),
        condition=node.condition,
        tests_first=isinstance(node, While),
        max_iterations=node.max_iterations,
        stuck_after=node.stuck_after,
        fails_at_max=node.on_max_iter is Policy.FAIL,
    )


def _parallel(node: Parallel, path: str, settings: _Settings) -> ParallelNode:
    inner = settings.inside(node.output, node.with_)
    count = len(node.calls)
    _fits(count, path)
    return ParallelNode(
        path=path,
        branches=tuple(_branch(call, f"{path}.{n}", inner) for n, call in enumerate(node.calls)),
        fail_fast=node.fail_fast,
        min_success=count if node.min_success is None else min(node.min_success, count),
        name=node.name,
    )


def _branch(call: ParallelCall, path: str, settings: _Settings) -> CallNode:
    inner = settings.inside(call.output, call.with_ or ())
    return replace(
        _agent(call.agent, path),
        retries=call.retries or 0,
        retry_delay_s=_seconds(call.retry_delay),
        output_schema=inner.output,
        schema=inner.schema,
        snippets=inner.snippets,
        condition=call.condition,
    )


def _gate(gate: Gate, path: str) -> GateNode:
    columns = {
        "path": path,
        "step_name": gate.name,
        "step_key": step_key(gate),
        "gate_type": gate.gate_type,
        "gate_timeout": str(gate.timeout_s),
    }
    if gate.prompt is not None:
        columns["gate_prompt"] = gate.prompt
    is_polled = gate.gate_type not in HUMAN_GATES
    return GateNode(path=path, gate=gate, columns=columns, is_polled=is_polled)


def _quality_gate(gate: QualityGate, path: str) -> QualityGateNode:
    columns = {
        "path": path,
        "step_name": gate.name,
        "step_key": step_key(gate),
        "role": "gate",
        "gate_type": "quality_gate",
    }
    return QualityGateNode(path=path, gate=gate, columns=columns)


def _fits(number: int, path: str) -> None:
    if number > ids.NUMBER_MAX:
        raise ValueError(f"{path}: {number} is more than {ids.NUMBER_MAX}")
