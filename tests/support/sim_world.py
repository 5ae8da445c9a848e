"""The whole world of one simulated history, and the moves that are possible in it."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.engine import ResumeMode, ResumeRefusedError
from runkon_server.dsl import snapshot
from runkon_server.runtime.commands import CancelRun, PinnedDefinition, ResolveGate, StartRun
from runkon_server.store.locking import TERMINAL
from runkon_server.verify.evidence import Evidence, Limits
from runkon_server.verify.invariants import LIVENESS, OF_HISTORIES, OF_RUNS, check
from runkon_server.verify.violations import Violation
from support.programs import CHILD, FLAG, Programs
from support.sim_connections import Fate, Faults, decide_late
from support.sim_parties import QUEUE, Follower, History, SimWorker
from support.sim_replicas import CONFIG, IDLE_IN_TX_S, NAMESPACE, Numbers, Replica
from support.sim_tables import Tables
from support.workflows import accepted

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition
    from runkon_server.verify.sometimes import Sometimes
    from support.sim_parties import Given

REPLICAS: Final = 3
SKEWS_S: Final = (3_600.0, -3_600.0, 0.0)
"""How far the clocks of replicas may be off."""
RUNS_MAX: Final = 6
TEXTS: Final = (
    "call a call b always { call c }",
    'call a { retries = 1 retry_delay = "2s" timeout = "6s" } always { call b call c }',
    'gate human_review { timeout = "4s" on_timeout = continue } call a always { call b }',
    'call a gate human_approval { approvers = 2 timeout = "6s" } call b',
    "parallel { call a call b call c } call a",
    *["foreach f { over = things workflow = child max_parallel = 2 }"] * 3,
    "call workflow child always { call workflow child }",
    'gate custom { timeout = "9s" } call a',
    "call a while a.m { max_iterations = 3 call b } call c",
)
CHILDREN: Final = (
    "call a",
    "call a { retries = 1 } always { call b }",
    'gate human_review { timeout = "5s" on_timeout = continue } call a',
)
_ROUNDS_MAX: Final = 400
_TURNS: Final = 40


class SimWorld:
    """Replicas, workers, callers, followers, the database, and what went wrong.

    Args:
        seed: of everything that the moves themselves do not say.
        sometimes: counts what has to occur over many histories.
        skews_s: how far each replica's clock is ahead.
        rates: how fast each replica's clock runs.
        text: of the workflows; None: anything.
    """

    def __init__(
        self,
        seed: int,
        sometimes: Sometimes,
        skews_s: tuple[float, ...] = (0.0, 0.0, 0.0),
        rates: tuple[float, ...] = (1.0, 1.0, 1.0),
        text: str | None = None,
    ) -> None:
        self.chance = random.Random(seed)
        self.sometimes = sometimes
        self.tables = Tables()
        self.faults = Faults()
        self.faults.seen = self._fate_seen
        self.faults.notify = self._notify
        self.drops_hints = False
        self.history = History(self.tables)
        self.numbers = Numbers()
        self._skews_s = skews_s
        self._rates = rates
        self._checked = 0
        self.definitions: dict[str, PinnedDefinition] = {}
        self.programs = [self._program(text) for _ in range(3)]
        self._install_child()
        self.replicas = [self._replica(number) for number in range(REPLICAS)]
        self.workers = [
            SimWorker(f"w{number}", self.history, random.Random(seed + number))
            for number in range(2)
        ]
        for worker, replica in zip(self.workers, self.replicas, strict=False):
            worker.connect(replica)
        self.followers: list[Follower] = []

    # -- what there is ---------------------------------------------------------------------------

    def _program(self, text: str | None) -> PinnedDefinition:
        if text is not None:
            return self._pinned(accepted(text))
        if self.chance.random() < 0.6:
            return self._pinned(accepted(self.chance.choice(TEXTS)))
        return self._pinned(Programs(self.chance, self.chance.randint(1, 2)).make())

    def _pinned(self, definition: Definition, version: int | None = None) -> PinnedDefinition:
        text = snapshot.dump(definition)
        content_hash = f"hash-{len(self.definitions)}"
        self.definitions[content_hash] = pinned = PinnedDefinition(
            content_hash=content_hash, snapshot=text, definition=definition, version=version
        )
        return pinned

    def _install_child(self) -> None:
        child = self._pinned(accepted(self.chance.choice(CHILDREN)), 1)
        row = {"snapshot": child.snapshot, "output_schemas": {}, "snippets": {}}
        self.tables.definitions[NAMESPACE, child.content_hash] = row
        self.tables.workflows[NAMESPACE, CHILD] = (1, child.content_hash)

    def _replica(self, number: int) -> Replica:
        replica = Replica(
            number,
            self.tables,
            self.faults,
            self.numbers,
            skew_s=self._skews_s[number % REPLICAS],
            rate=self._rates[number % REPLICAS],
        )
        registry = replica.engine._registry
        refused = registry.refused

        def counted(entry: Any) -> None:
            if entry.is_lost:
                self.sometimes.occurred("zombie write rejected")
            elif entry.is_behind:
                self.sometimes.occurred("fact landed in between")
            refused(entry)

        registry.refused = counted  # type: ignore[method-assign]  # looks on, changes nothing
        return replica

    def _notify(self, payload: str) -> None:
        if self.drops_hints:
            self.sometimes.occurred("hint dropped")
            return
        hint = json.loads(payload)
        for replica in self.replicas:
            if replica.engine._start_id != hint.get("s"):
                replica.hear(hint)

    def _fate_seen(self, fate: Fate) -> None:
        if fate is not Fate.ANSWERED:
            self.sometimes.occurred(f"commit {fate}")

    def run_ids(self) -> list[str]:
        """All runs, children too."""
        return list(self.tables.runs)

    def pending_gates(self) -> list[str]:
        """Gates that somebody may decide."""
        return [gate["id"] for gate in self.tables.gates.values() if gate["state"] == "pending"]

    # -- moves -----------------------------------------------------------------------------------

    def start(self, replica: Replica, program: int, request: int) -> None:
        """A caller starts a run, perhaps with a request id that has been used."""
        if (
            sum(run["parent_workflow_run_id"] is None for run in self.tables.runs.values())
            >= RUNS_MAX
        ):
            return
        pinned = self.programs[program % len(self.programs)]
        name = f"q{request}"
        command = StartRun(
            namespace=NAMESPACE,
            pinned=pinned,
            inputs={FLAG: "true"},
            principal="ann",
            request_id=name,
            digest=pinned.content_hash,
            labels={"name": f"{name} {pinned.content_hash}", "queue": QUEUE},
            fail_fast=request % 2 == 0,
        )
        args = {
            "request_id": name,
            "digest": pinned.content_hash,
            "name": f"{name} {pinned.content_hash}",
        }
        work = replica.engine.start_run(command)
        self.history.call(replica, work, "StartRun", args, self._started)

    def _started(self, answer: Any) -> dict[str, Any]:
        if answer.replayed:
            self.sometimes.occurred("request replayed")
        elif len(self.followers) < RUNS_MAX:
            self.followers.append(Follower(f"f{len(self.followers)}", answer.run_id, self.tables))
            for replica in self.replicas:
                self.followers[-1].listen(replica)
        return {"run_id": answer.run_id}

    def cancel(self, replica: Replica, run_id: str, *, force: bool) -> None:
        """A caller cancels a run."""
        command = CancelRun(
            namespace=NAMESPACE, run_id=run_id, principal="ann", reason="enough", force=force
        )
        args = {"run_id": run_id}
        work = replica.engine.cancel_run(command)
        self.history.call(replica, work, "CancelRun", args, lambda _: {"run_id": run_id})

    def vote(self, replica: Replica, gate_id: str, principal: str, *, approve: bool) -> None:
        """Somebody votes at a gate."""
        command = ResolveGate(
            namespace=NAMESPACE, principal=principal, approve=approve, gate_id=gate_id
        )
        args = {"gate_id": gate_id, "principal": principal, "approve": approve}
        work = replica.engine.resolve_gate(command)
        self.history.call(replica, work, "ResolveGate", args, lambda _: {"gate_id": gate_id})

    def resume(self, replica: Replica, run_id: str, mode: ResumeMode) -> None:
        """A caller takes up a run again."""
        args = {"run_id": run_id}
        work = self._resume(replica, run_id, mode)
        self.history.call(replica, work, "ResumeRun", args, lambda _: {"run_id": run_id})

    async def _resume(self, replica: Replica, run_id: str, mode: ResumeMode) -> None:
        try:
            await replica.engine.resume(run_id, mode, None)
        except ResumeRefusedError:
            self.sometimes.occurred("resume refused")
        else:
            self.sometimes.occurred("resumed")

    def nemesis(self, number: int, how: str) -> None:
        """Something happens to a replica; one that is gone is followed by a new one."""
        replica = self.replicas[number % len(self.replicas)]
        self.sometimes.occurred(how)
        match how:
            case "crash":
                replica.crash()
            case "freeze":
                replica.is_frozen = True
                return
            case "thaw":
                replica.is_frozen = False
                return
            case "terminate":
                replica.is_frozen = False
                replica.call(replica.engine.hand_over())
                replica.turn(_TURNS)
                replica.crash()
            case _:
                raise AssertionError(how)
        self.replicas[self.replicas.index(replica)] = new = self._replica(number % REPLICAS)
        for follower in self.followers:
            follower.listen(new)

    def crash_database(self) -> None:
        """PostgreSQL crashes and is there again: no session is left, and what was not on the disk.

        A COMMIT whose answer is open has not arrived there.
        """
        for xid in list(self.faults.late):
            tx, _, _ = self.faults.late[xid]
            self.faults.late[xid] = (tx, 0, False)
            decide_late(self.tables, self.faults, xid)
        if self.tables.crash():
            self.sometimes.occurred("claim lost")
        for replica in self.replicas:
            for session in replica.engine.sessions:
                session.break_off()

    def pass_time(self, seconds: float) -> None:
        """The clocks go on; sessions that are idle in a transaction are ended."""
        self.tables.elapsed_s += seconds
        before = sum(outcome == "in progress" for outcome in self.tables.outcomes.values())
        self.tables.end_idle(IDLE_IN_TX_S)
        after = sum(outcome == "in progress" for outcome in self.tables.outcomes.values())
        if after < before:
            self.sometimes.occurred("ended idle in a transaction")

    def turn(self, replica: Replica, times: int) -> None:
        """A replica goes on for a moment."""
        replica.turn(times)

    def turn_all(self, times: int = _TURNS) -> None:
        """All replicas go on, turn by turn, until nothing is left to do now."""
        for _ in range(times):
            busy = [each for each in self.replicas if each.is_running and each.loop.is_busy]
            if not busy:
                return
            for replica in busy:
                replica.turn()

    def report(self, worker: SimWorker, how: str) -> None:
        """A worker says something of a task: in time, late, twice, or what is not true."""
        pool: list[Given] = (
            worker.tasks if how in {"late", "twice", "contradiction"} else worker.open
        )
        if not pool:
            return
        given = self.chance.choice(pool)
        other = self.chance.choice(self.replicas)
        match how:
            case "well" | "badly":
                # A child that fails ends the branch it is in, and would be rare otherwise.
                run = self.tables.runs[given.lease.run_id]
                is_root = run["parent_workflow_run_id"] is None
                fact = worker.answer(given, well=how == "well" and is_root)
                by = other if self.chance.random() < 0.3 else None
                worker.report(given, fact, by=by, decides=self.chance.random() < 0.3)
            case "twice":
                if given.first is None:
                    worker.report(given, worker.answer(given, well=True))
                    assert given.first is not None
                worker.send(given, given.first, other)
            case "late":
                worker.report(given, worker.answer(given, well=True), by=other)
            case "contradiction":
                worker.report(given, worker.answer(given, well=False), by=other)
            case "forged":
                worker.report(given, worker.answer(given, well=True), token="forged", by=other)
            case _:
                raise AssertionError(how)

    # -- what must hold --------------------------------------------------------------------------

    def evidence(self, run_ids: set[str] | None = None, **more: Any) -> Evidence:
        """What there is to say about these runs, or about all."""
        wanted = set(self.tables.runs) if run_ids is None else run_ids
        return Evidence(
            runs=self.tables.evidence_of(wanted),
            definitions={key: each.snapshot for key, each in self.definitions.items()},
            ownership=[each for each in self.tables.ownership if each.run_id in wanted],
            is_ownership_complete=True,
            operations=self.history.operations,
            subscriptions=[each.subscription() for each in self.followers if each.run_id in wanted],
            effects=[each for each in self.history.effects if each.run_id in wanted],
            are_effects_complete=True,
            limits=Limits(deliveries_max=CONFIG.deliveries_max),
            **more,
        )

    def violations(self) -> list[Violation]:
        """What the last move broke."""
        changed, self.tables.changed = self.tables.changed, set()
        found: list[Violation] = []
        if changed:
            evidence = self.evidence(changed)
            found += check(evidence, OF_RUNS)
            self._note(evidence)
        if changed or len(self.history.operations) > self._checked:
            self._checked = len(self.history.operations)
            found += check(self.evidence(), OF_HISTORIES)
        return found + self.failures()

    def failures(self) -> list[Violation]:
        """Errors inside of replicas that nobody handles."""
        return (
            [
                Violation(invariant="no surprise", what=f"{replica.name}: {context}")
                for replica in self.replicas
                for context in replica.loop.failures
            ]
            + [
                Violation(invariant="no surprise", what=f"{replica.name} refused a commit")
                for replica in self.replicas
                if replica.engine.stats.commit_refusals
            ]
            + [
                Violation(invariant="no surprise", what=f"{replica.name}: {error!r}")
                for replica in self.replicas
                if (error := replica.engine.failure()) is not None
            ]
        )

    def _note(self, evidence: Evidence) -> None:
        """Count what has just been seen."""
        for run in evidence.runs.values():
            for step in run.steps:
                if step.get("fan_out_total") is None:
                    continue
                running = sum(
                    item["status"] == "running" and item["step_run_id"] == step["id"]
                    for item in run.items
                )
                if running >= 2:
                    self.sometimes.occurred("fan-out at max_parallel")

    def close_books(self) -> None:
        """End everything, and count what can be counted at the end."""
        for replica in self.replicas:
            replica.crash()
        sometimes = self.sometimes
        sometimes.occurred("taken inside `always`", self.tables.taken_inside_always)
        for each in self.tables.ownership:
            sometimes.occurred(f"taken: {each.why}")
        statuses = {"stale": "late report rejected", "duplicate": "report repeated",
                    "refused": "report refused"}  # fmt: skip
        for line in self.history.operations:
            if line.op == "ReportTask" and line.result["status"] in statuses:
                sometimes.occurred(statuses[line.result["status"]])
        for reason in self.history.refusals:
            if reason in _REFUSALS:
                sometimes.occurred(_REFUSALS[reason])
        for run in self.tables.runs.values():
            if run["parent_workflow_run_id"] is not None:
                sometimes.occurred(f"child {run['status']}")
        for task in self.tables.tasks.values():
            if task["delivery"] > 0:
                sometimes.occurred("task handed out again")
        for event in self.tables.events.values():
            if event.kind == "gate_resolved":
                sometimes.occurred(f"gate {event.payload['gate']['state']}")

    # -- healing ---------------------------------------------------------------------------------

    def heal(self) -> Evidence:
        """End all faults, let everybody work, and wait until every run has come to rest."""
        self.faults.fates.clear()
        self.faults.is_away = self.drops_hints = False
        for xid in list(self.faults.late):
            decide_late(self.tables, self.faults, xid)
        for replica in self.replicas:
            replica.is_frozen = False
        healed_at = self.tables.now.timestamp()
        for worker, replica in zip(self.workers, self.replicas, strict=False):
            worker.connect(replica)
        for number in range(_ROUNDS_MAX):
            self.turn_all()
            if self._is_at_rest():
                break
            self._help(number)
            self.pass_time(0.2511 if number % 4 else 2.5017)
        for follower in self.followers:
            follower.read()
        return self.evidence(healed_at=healed_at, taken_at=healed_at + 1e9)

    def _is_at_rest(self) -> bool:
        return all(
            run["status"] in TERMINAL and run["parent_notified"]
            for run in self.tables.runs.values()
        )

    def _help(self, number: int) -> None:
        """Workers work, people decide."""
        for worker in self.workers:
            for given in list(worker.open):
                worker.report(given, worker.answer(given, well=True), decides=True)
        for gate_id in self.pending_gates():
            principal = f"p{number % 7}"
            self.vote(self.chance.choice(self.replicas), gate_id, principal, approve=True)


ALL_SAFETY: Final = (*OF_RUNS, *OF_HISTORIES)
ALL: Final = (*ALL_SAFETY, *LIVENESS)
_REFUSALS: Final = {
    "GATE_TIMED_OUT": "gate raced timeout",
    "GATE_ALREADY_RESOLVED": "gate raced another vote",
    "RUN_STATE": "cancel raced completion",
    "REQUEST_ID_REUSED": "request id reused",
    "OUTCOME_UNKNOWN": "outcome unknown",
}
