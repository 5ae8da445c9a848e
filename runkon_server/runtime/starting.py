"""StartRun: one commit holds the run, its first decision and the first task on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon_server import errors
from runkon_server.core.engine import restore
from runkon_server.core.facts import Started
from runkon_server.core.records import RunRecord, RunRows
from runkon_server.runtime.actors import Actor, DecisionEntry, Offer
from runkon_server.runtime.changeset import DETAIL_COLUMNS
from runkon_server.runtime.commands import ConflictPolicy, RunStarted
from runkon_server.runtime.entries import CallEntry
from runkon_server.store.loading import RunInfo
from runkon_server.store.locking import TERMINAL, LockedRun
from runkon_server.store.writing import NewRun

if TYPE_CHECKING:
    from runkon_server.runtime.commands import StartRun
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.registry import Registry
    from runkon_server.store.locking import NewRequest, Wants


class StartEntry(CallEntry[RunStarted]):
    """Creates a run owned by this replica, unless its key or its request id says otherwise.

    Args:
        instead_of: a run that may hold the key although it is live (it is being cancelled for us).
    """

    __slots__ = ("_command", "_decision", "_instead_of", "_registry", "_waiting")

    def __init__(
        self,
        registry: Registry,
        run_id: str,
        command: StartRun,
        request: NewRequest | None,
        *,
        instead_of: str | None = None,
    ) -> None:
        super().__init__(run_id, request)
        self._registry = registry
        self._command = command
        self._instead_of = instead_of
        self._decision: DecisionEntry | None = None
        self._waiting: Actor | None = None
        """Of a run whose first decision needs more than is at hand: it is made after the commit."""
        if not command.start_delay:
            self._decide_first()

    def _decide_first(self) -> None:
        """What the run does at once."""
        command, registry = self._command, self._registry
        pinned = command.pinned
        info = RunInfo(
            namespace=command.namespace,
            workflow_name=pinned.definition.name,
            content_hash=pinned.content_hash,
            workflow_version=pinned.version,
            trigger=command.trigger,
            started_by=command.principal,
            labels=command.labels,
            identity=None,
            priority=command.priority,
            parent_workflow_run_id=None,
            owner_token=None,
            generation=1,
            last_seq=0,
            fact_seq=0,
            applied_fact_seq=0,
        )
        program = registry.programs.of(command.namespace, pinned)
        record = RunRecord(
            run_id=self.run_id,
            workflow_name=pinned.definition.name,
            status="pending",
            inputs=command.inputs,
            dry_run=command.dry_run,
            fail_fast=command.fail_fast,
        )
        state = restore(program.plan, RunRows(run=record))
        actor = Actor(registry, self.run_id, info, 1, state, program)
        decision = actor.decide([Offer(Started())])
        if decision.changeset.has_children:
            registry.unassign(decision)
            self._waiting = actor
        else:
            self._decision = decision

    @property
    def exclusive(self) -> tuple[tuple[str, ...], ...]:
        command = self._command
        if command.key is None:
            return super().exclusive
        return (*super().exclusive, ("key", command.namespace, command.key))

    def want(self, wants: Wants) -> None:
        super().want(wants)
        if self._command.key is not None:
            wants.run_keys[(self._command.namespace, self._command.key)] = self.run_id

    def replay(self, response: dict[str, Any]) -> RunStarted:
        assert self._command.request_id is not None
        return RunStarted.replay(self._command.request_id, response)

    def takes_up(self, response: dict[str, Any]) -> bool:
        """The run of a request in SQL is created by whoever has it in hand, and by nobody else."""
        return "pending" in response and response["run_id"] == self._command.promised_id

    def decide(self, batch: Batch) -> None:
        if not batch.may_take:
            self.refusal = errors.DatabaseUnavailableError()
            return
        if not self._take_key(batch):
            return
        command, pinned = self._command, self._command.pinned
        if not self._registry.programs.is_stored(command.namespace, pinned.content_hash):
            batch.writes.add_definition(
                command.namespace,
                pinned.content_hash,
                snapshot=pinned.snapshot,
                output_schemas=pinned.output_schemas,
                snippets=pinned.snippets,
            )
        run = LockedRun(
            self.run_id, command.namespace, "pending", batch.owner_token, 1, 0, 0, 0, 1,
            command.principal,
        )  # fmt: skip
        decision = self._decision
        row = self._row()
        if self._waiting is not None:
            batch.record_fact(run, Started())
        elif decision is None:
            assert command.start_delay is not None
            delay_s = command.start_delay.total_seconds()
            run.owner_token = None
            row["generation"] = 0
            row["ready_in_s"] = delay_s
            batch.writes.timers.append(
                {"run_id": run.id, "id": f"{run.id}:start", "kind": "start", "attempt": 0,
                 "delay_s": delay_s}
            )  # fmt: skip
            batch.ready_runs = True
        else:
            run.fact_seq = run.applied_fact_seq = 1
            decision.applied_fact_seq = 1
            decision.changeset.write_to(batch, run)
            decision.is_parked = decision.park and decision.changeset.ended is None
            if decision.changeset.ended is not None:
                run.owner_token = None
            elif decision.is_parked:
                run.owner_token = None
                waits = [timer.delay_s for timer in decision.changeset.timers.values()]
                row["ready_in_s"] = min(waits, default=None)
        row.update(
            status=run.status,
            owner_token=run.owner_token,
            last_seq=run.last_seq,
            fact_seq=run.fact_seq,
            applied_fact_seq=run.applied_fact_seq,
            phase=run.changes.get("phase", "body"),
            body_outcome=run.changes.get("body_outcome"),
            blocked_on=run.changes.get("blocked_on"),
        )
        batch.writes.new_runs.append(NewRun(row, self._details()))
        if command.promised_id is not None:
            self._answer_request(batch, self.run_id, started=True)
        self.answer = RunStarted(run_id=self.run_id, started=True)

    def _answer_request(self, batch: Batch, run_id: str, *, started: bool) -> None:
        """Change what the request id is answered from now on."""
        command = self._command
        if command.request_id is not None:
            batch.writes.responses.append(
                {
                    "namespace": command.namespace,
                    "request_id": command.request_id,
                    "response": {
                        "run_id": run_id,
                        "started": started,
                        "payload": command.sql_digest,
                    },
                }
            )

    def _take_key(self, batch: Batch) -> bool:
        """Whether the run's key is free; sets the answer or refusal when it is not."""
        command = self._command
        if command.key is None:
            return True
        holder, status = batch.locked.keys[(command.namespace, command.key)]
        if holder == self.run_id:
            return True
        if status is not None and status not in TERMINAL and holder != self._instead_of:
            if command.conflict_policy is ConflictPolicy.USE_EXISTING:
                self.answer = RunStarted(run_id=holder, started=False)
                self._answer_request(batch, holder, started=False)
            else:
                self.refusal = errors.RunKeyInUseError(command.key, run_id=holder)
            return False
        batch.writes.keys.append(
            {"namespace": command.namespace, "key": command.key, "run_id": self.run_id}
        )
        return True

    def _row(self) -> dict[str, Any]:
        command = self._command
        return {
            "id": self.run_id,
            "namespace": command.namespace,
            "workflow_name": command.pinned.definition.name,
            "parent_run_id": command.parent_run_id,
            "dry_run": command.dry_run,
            "fail_fast": command.fail_fast,
            "priority": command.priority,
            "generation": 1,
        }

    def _details(self) -> dict[str, Any]:
        command, pinned = self._command, self._command.pinned
        changed = self._decision.changeset.run if self._decision else {}
        details: dict[str, Any] = {
            "run_id": self.run_id,
            "namespace": command.namespace,
            "key": command.key,
            "workflow_version": pinned.version,
            "content_hash": pinned.content_hash,
            "workflow_title": pinned.definition.title,
            "trigger": command.trigger,
            "started_by": command.principal,
            "inputs": command.inputs,
            "labels": command.labels,
        }
        if command.start_delay:
            details["delay_s"] = command.start_delay.total_seconds()
        details.update({name: changed[name] for name in DETAIL_COLUMNS if name in changed})
        return details

    def committed(self, batch: Batch) -> None:
        registry, decision = self._registry, self._decision
        started = self.answer is not None and self.answer.started and not self.answer.replayed
        if started:
            pinned = self._command.pinned
            registry.programs.mark_stored(self._command.namespace, pinned.content_hash)
            registry.started(decision, batch)
            if self._waiting is not None:
                registry.begin(self._waiting)
        elif decision is not None:
            registry.unassign(decision)
        super().committed(batch)

    def failed(self, error: Exception) -> None:
        if self._decision is not None:
            self._registry.unassign(self._decision, may_be_written=True)
        super().failed(error)
