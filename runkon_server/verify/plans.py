"""The definitions that runs were pinned to, made ready for the invariants that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core.engine import compile_plan
from runkon_server.core.plan import Block, ForEachNode, Loop, ParallelNode
from runkon_server.dsl import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.core.plan import CallNode, Plan, PlanNode
    from runkon_server.verify.evidence import RunEvidence


class Plans:
    """Plans by content hash, compiled when they are first asked for.

    Output schemas are not archived: they decide what a report is worth, not what may follow it.
    """

    def __init__(self, definitions: Mapping[str, str]) -> None:
        self._definitions = definitions
        self._plans: dict[str, Plan] = {}
        self._nodes: dict[str, dict[str, PlanNode]] = {}

    def of(self, run: RunEvidence) -> Plan | None:
        """The plan that a run is pinned to; None: its definition is not among the evidence."""
        key = str(run.row["content_hash"])
        if key not in self._plans:
            if key not in self._definitions:
                return None
            self._plans[key] = plan = compile_plan(snapshot.load(self._definitions[key]))
            roots = (plan.body, plan.always)
            self._nodes[key] = {node.path: node for root in roots for node in _nodes_in(root)}
        return self._plans[key]

    def node(self, run: RunEvidence, path: str) -> PlanNode | None:
        """The node at a path of a run's plan; None: there is none, or no plan."""
        if self.of(run) is None:
            return None
        return self._nodes[str(run.row["content_hash"])].get(path)

    def loops_above(self, run: RunEvidence, path: str) -> list[int]:
        """`max_iterations` of the loops around a path, outermost first."""
        parts = path.split(".")
        above = (self.node(run, ".".join(parts[:length])) for length in range(1, len(parts)))
        return [node.max_iterations for node in above if isinstance(node, Loop)]

    def timeout_of(self, run: RunEvidence, path: str) -> float | None:
        """Seconds after which an attempt at a step times out; None: never, or not known."""
        return getattr(self.node(run, path), "timeout_s", None)

    def retries_of(self, run: RunEvidence, path: str) -> int | None:
        """How often a step is tried again at most; None: not known."""
        node = self.node(run, path)
        return None if node is None else getattr(node, "retries", 0)

    def parallel_of(self, run: RunEvidence, path: str) -> int | None:
        """How many items of a foreach may run at the same time; None: not known."""
        node = self.node(run, path)
        return max(1, node.each.max_parallel) if isinstance(node, ForEachNode) else None


def _nodes_in(node: PlanNode) -> Iterator[PlanNode]:
    yield node
    for child in _children_of(node):
        yield from _nodes_in(child)


def _children_of(node: PlanNode) -> tuple[PlanNode, ...]:
    if isinstance(node, Block | Loop):
        return node.children
    if isinstance(node, ParallelNode):
        return node.branches
    agent: CallNode | None = getattr(node, "on_fail", None)
    return () if agent is None else (agent,)
