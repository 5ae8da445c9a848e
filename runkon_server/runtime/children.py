"""What a decision does to child runs: made ready before its commit, written with it.

Finding a workflow or the rows of a child takes reads, so it happens between the decision and its
commit; all that may have changed meanwhile is looked at again under the locks. What cannot be done
comes back to the parent as the end of that child, recorded in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server import errors
from runkon_server.core.engine import ResumeMode, ResumeRefusedError, restore
from runkon_server.core.facts import ChildEnded, Started, dump_fact, kind_of
from runkon_server.core.records import RunRecord, RunRows
from runkon_server.failpoints import failpoint
from runkon_server.runtime.actors import Actor
from runkon_server.runtime.cancels import ask_to_stop
from runkon_server.runtime.inputs import complete_inputs
from runkon_server.store.loading import load_pinned
from runkon_server.store.locking import LockedRun
from runkon_server.store.writing import NewRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.core.decision import CancelChild, ResumeChild, StartChild
    from runkon_server.runtime.changeset import Changeset
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.runtime.programs import Program
    from runkon_server.runtime.registry import Registry
    from runkon_server.runtime.resuming import Resumption
    from runkon_server.store.locking import Wants

DEPTH_MAX: Final = 5
"""Runs below a root, as the language's checks count them."""
DESCENDANTS_MAX: Final = 50_000
"""Runs below a root, all together."""
BUDGET_EXCEEDED: Final = "BUDGET_EXCEEDED"
DEPTH_EXCEEDED: Final = "DEPTH_EXCEEDED"
RESUME_REFUSED: Final = "RESUME_REFUSED"


def refusal(
    order: StartChild | ResumeChild, code: str, error: str, *, epoch: int = 1
) -> ChildEnded:
    """What a parent is told of a child that cannot be started or resumed."""
    return ChildEnded(
        child_run_id=order.child_run_id,
        child_epoch=epoch,
        status="failed",
        error=error,
        error_code=code,
        retryable=False,
    )


class NewChild:
    """A child run to be created: pending, with the fact that begins it stored beside it.

    So whoever owns it first begins it, this replica at once or another one that found it ready.
    """

    __slots__ = ("_info", "_record", "order", "program")

    def __init__(
        self,
        order: StartChild,
        parent: Actor,
        version: int,
        program: Program,
        inputs: dict[str, str],
    ) -> None:
        info, setup = parent.info, parent.state.setup
        self.order = order
        self.program = program
        self._record = RunRecord(
            run_id=order.child_run_id,
            workflow_name=order.workflow_name,
            status="pending",
            inputs=inputs,
            dry_run=setup.dry_run,
            fail_fast=setup.fail_fast,
            grace_s=setup.grace_s,
            depth=order.depth,
            root_run_id=order.root_run_id,
        )
        self._info = replace(
            info,
            workflow_name=order.workflow_name,
            content_hash=program.content_hash,
            workflow_version=version,
            identity=order.identity or info.identity,
            parent_workflow_run_id=parent.run_id,
            owner_token=None,
            generation=1,
            last_seq=0,
            fact_seq=1,
            applied_fact_seq=0,
        )

    def _row(self, owner_token: str | None) -> dict[str, Any]:
        record, info = self._record, self._info
        return {
            "id": record.run_id,
            "namespace": info.namespace,
            "workflow_name": record.workflow_name,
            "parent_workflow_run_id": info.parent_workflow_run_id,
            "dry_run": record.dry_run,
            "fail_fast": record.fail_fast,
            "priority": info.priority,
            "status": "pending",
            "phase": "body",
            "owner_token": owner_token,
            "generation": 1,
            "last_seq": 0,
            "fact_seq": 1,
            "applied_fact_seq": 0,
            "ready_in_s": 0,
        }

    def _details(self) -> dict[str, Any]:
        order, record, info = self.order, self._record, self._info
        return {
            "run_id": record.run_id,
            "namespace": info.namespace,
            "workflow_version": info.workflow_version,
            "content_hash": info.content_hash,
            "workflow_title": self.program.definition.title,
            "trigger": info.trigger,
            "started_by": info.started_by,
            "inputs": record.inputs,
            "labels": info.labels,
            "root_run_id": record.root_run_id,
            "depth": record.depth,
            "parent_step_id": order.step_id,
            "fan_out_item_id": order.item_id,
            "identity": info.identity,
            "grace_s": record.grace_s,
        }

    def write_to(self, batch: Batch, owner_token: str | None) -> None:
        """Add the rows; without an owner the run is ready for any replica."""
        run_id = self.order.child_run_id
        batch.writes.new_runs.append(NewRun(self._row(owner_token), self._details()))
        fact = Started()
        batch.writes.facts.append(
            {"run_id": run_id, "fact_seq": 1, "kind": kind_of(fact), "payload": dump_fact(fact)}
        )
        batch.ready_runs = batch.ready_runs or owner_token is None
        # For those of this batch that want something of the run that it makes.
        batch.locked.runs[run_id] = LockedRun(
            run_id, self._info.namespace, "pending", owner_token, 1, 0, 1, 0, 1,
            self._info.started_by,
        )  # fmt: skip

    def begin(self, registry: Registry) -> None:
        """After the commit: take the run up here."""
        state = restore(self.program.plan, RunRows(run=self._record))
        actor = Actor(registry, self.order.child_run_id, self._info, 1, state, self.program)
        registry.stats.runs_started += 1
        registry.begin(actor)


@dataclass(frozen=True, slots=True)
class ChildResume:
    """A child run to be resumed."""

    order: ResumeChild
    resumption: Resumption | None
    """None: the child was not in a state to be resumed when it was read."""
    why_not: str = ""


@dataclass(slots=True)
class Offspring:
    """The child runs of one decision."""

    root_run_id: str
    starts: list[NewChild] = field(default_factory=list)
    resumes: list[ChildResume] = field(default_factory=list)
    cancels: list[CancelChild] = field(default_factory=list)
    refused: list[ChildEnded] = field(default_factory=list)
    """What was refused without a look under the locks."""
    _begun: list[NewChild] = field(default_factory=list)
    _resumed: list[Resumption] = field(default_factory=list)
    _recorded: list[FactRecorded] = field(default_factory=list)
    unheard: list[FactRecorded] = field(default_factory=list)
    """Refusals, recorded for the parent itself."""

    def want(self, wants: Wants) -> None:
        """Name the rows to lock."""
        if self.starts:
            wants.runs.add(self.root_run_id)
        wants.runs |= {order.child_run_id for order in self.cancels}
        for each in self.resumes:
            wants.runs.add(each.order.child_run_id)
            if each.resumption is not None:
                each.resumption.want(wants)

    def write_to(self, batch: Batch, parent: LockedRun, *, is_draining: bool) -> None:
        """Add the rows and facts; under the locks."""
        self._begun, self._resumed, self._recorded, self.unheard = [], [], [], []
        refused = list(self.refused)
        refused += self._start(batch, None if is_draining else batch.owner_token)
        refused += self._resume(batch)
        for order in self.cancels:
            self._cancel(batch, parent, order)
        if not parent.is_terminal:
            self.unheard = [batch.record_fact(parent, fact) for fact in refused]

    def _start(self, batch: Batch, owner_token: str | None) -> list[ChildEnded]:
        if not self.starts:
            return []
        root = batch.locked.runs.get(self.root_run_id)
        room = len(self.starts)
        if root is not None:
            room = min(room, max(0, DESCENDANTS_MAX - root.descendants))
            root.descendants += room
            root.changes["descendants"] = root.descendants
            root.changes.setdefault("lease", "keep")
        for child in self.starts[:room]:
            child.write_to(batch, owner_token)
            if owner_token is not None:
                self._begun.append(child)
        error = f"the tree of runs below {self.root_run_id} has {DESCENDANTS_MAX} already"
        return [refusal(each.order, BUDGET_EXCEEDED, error) for each in self.starts[room:]]

    def _resume(self, batch: Batch) -> list[ChildEnded]:
        refused: list[ChildEnded] = []
        for each in self.resumes:
            order, resumption = each.order, each.resumption
            child = batch.locked.runs.get(order.child_run_id)
            if child is not None and child.epoch == order.child_epoch:
                # Somebody resumed it before: how that ends is what the parent waits for, and where
                # it waits was told to a parent that was over.
                if child.is_terminal or child.status == "waiting":
                    child.parent_notified = False
                    child.changes["parent_notified"] = False
                    child.changes.setdefault("lease", "keep")
            elif (
                child is not None
                and resumption is not None
                and resumption.epoch == order.child_epoch
                and resumption.is_current(child, batch.locked.timeline)
            ):
                resumption.write_to(batch, child)
                self._resumed.append(resumption)
            else:
                # Also after several resumptions of its own: the parent waits for the end of the one
                # behind that which it knows, and would never hear of it.
                error = each.why_not or f"run {order.child_run_id} has changed since it failed"
                refused.append(refusal(order, RESUME_REFUSED, error, epoch=order.child_epoch))
        return refused

    def _cancel(self, batch: Batch, parent: LockedRun, order: CancelChild) -> None:
        child = batch.locked.runs.get(order.child_run_id)
        if child is None or child.epoch != order.child_epoch:
            return
        recorded = ask_to_stop(
            batch,
            child,
            reason=order.reason,
            force=order.force,
            requested_by=f"run {parent.id}",
        )
        if recorded is not None:
            self._recorded.append(recorded)

    def committed(self, registry: Registry, batch: Batch) -> None:
        """Take up what this replica owns now."""
        failpoint("children.committed")
        for child in self._begun:
            child.begin(registry)
            failpoint("child.begun")
        for resumption in self._resumed:
            resumption.committed(batch)
        for each in self.resumes:
            if each.resumption is not None and each.resumption not in self._resumed:
                each.resumption.release(registry)
            registry.notifier.tell(each.order.child_run_id)
        for recorded in self._recorded:
            registry.recorded(recorded)

    def release(self, registry: Registry) -> None:
        """The decision was not committed: give back what was reserved for it."""
        for each in self.resumes:
            if each.resumption is not None:
                each.resumption.release(registry)


async def prepare(registry: Registry, parent: Actor, changeset: Changeset) -> Offspring:
    """Find what the orders of a decision need."""
    offspring = Offspring(parent.state.setup.root_run_id, cancels=changeset.child_cancels)
    found = await _find_workflows(registry, parent, changeset.child_starts)
    for start in changeset.child_starts:
        made = _new_child(parent, start, found.get(start.step_id))
        if isinstance(made, NewChild):
            offspring.starts.append(made)
        else:
            offspring.refused.append(made)
    try:
        for resume in changeset.child_resumes:
            offspring.resumes.append(await _prepare_resume(registry, resume))
    except BaseException:
        offspring.release(registry)
        raise
    return offspring


async def _prepare_resume(registry: Registry, order: ResumeChild) -> ChildResume:
    try:
        resumption = await registry.prepare_resume(order.child_run_id, ResumeMode.NORMAL)
    except (ResumeRefusedError, errors.RunNotFoundError) as error:
        return ChildResume(order, None, str(error))
    return ChildResume(order, resumption)


async def _find_workflows(
    registry: Registry, parent: Actor, starts: Sequence[StartChild]
) -> dict[str, tuple[int, Program] | ValueError]:
    """What the children of each step run: the newest version, or for items that of the first."""
    found: dict[str, tuple[int, Program] | ValueError] = {}
    wanted: dict[str, StartChild] = {}
    for start in starts:
        if start.step_id in parent.pinned:
            found[start.step_id] = parent.pinned[start.step_id]
        else:
            wanted[start.step_id] = start
    for step_id, start in list(wanted.items()):
        pinned = await _pinned_program(registry, parent, start)
        if pinned is not None:
            found[step_id] = pinned
            if not isinstance(pinned, ValueError):
                parent.pinned[step_id] = pinned
            del wanted[step_id]
    if not wanted:
        return found
    names = sorted({start.workflow_name for start in wanted.values()})
    newest = await registry.programs.newest(registry.reads, parent.info.namespace, names)
    for step_id, start in wanted.items():
        workflow = newest.get(start.workflow_name)
        if workflow is None:
            continue
        found[step_id] = workflow
        if start.item_id is not None and not isinstance(workflow, ValueError):
            parent.pinned[step_id] = workflow
    return found


async def _pinned_program(
    registry: Registry, parent: Actor, start: StartChild
) -> tuple[int, Program] | ValueError | None:
    """What earlier items of a `foreach` run, whoever owned the run then.

    A definition that a newer server stored, and this one cannot run, is told as its error.
    """
    if start.item_id is None:
        return None
    async with registry.reads.connect() as conn:
        pinned = await load_pinned(conn, parent.run_id, start.step_id)
    if pinned is None:
        return None
    version, content_hash = pinned
    try:
        program = await registry.programs.load(registry.reads, parent.info.namespace, content_hash)
    except ValueError as error:
        return error
    return version, program


def _new_child(
    parent: Actor, order: StartChild, found: tuple[int, Program] | ValueError | None
) -> NewChild | ChildEnded:
    if order.depth > DEPTH_MAX:
        error = f"`{order.workflow_name}` would be {order.depth} runs deep, at most {DEPTH_MAX} are"
        return refusal(order, DEPTH_EXCEEDED, error + " possible")
    if found is None:
        missing = errors.WorkflowNotFoundError(order.workflow_name)
        return refusal(order, missing.reason, missing.message)
    if isinstance(found, ValueError):
        error = f"`{order.workflow_name}` cannot be run by this version of the server: {found}"
        return refusal(order, errors.DslUnsupportedError.reason, error)
    version, program = found
    try:
        inputs = complete_inputs(
            program.definition, order.inputs, is_item=order.item_id is not None
        )
    except errors.InputsInvalidError as error:
        return refusal(order, error.reason, f"`{order.workflow_name}`: {error.message}")
    return NewChild(order, parent, version, program, inputs)
