"""What a server holds while it is asked: runs, gates, tasks in hand, and what answers told of it.

Requests name things that exist by drawing a number first and looking second: what is drawn after
it does not depend on how much there is.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import gates_pb2, runs_pb2, types_pb2, workers_pb2, workflows_pb2

if TYPE_CHECKING:
    from random import Random

    from google.protobuf.message import Message

    from support.live_api import LiveApi

T = TypeVar("T")
KEPT: Final = 60
LOOKED_AT: Final = 6
DEPTH: Final = 5
KEYS: Final = tuple(f"key-{n}" for n in range(12))
INPUTS: Final = """inputs {
    flag boolean
    what default = ""
    seconds default = "0"
}"""
BODIES: Final = {
    "quick": "call echo",
    "slept": "call sleep { on_fail = continue }",
    "gated": """gate human_review {
        name = look options = { yes = "Yes" no = "No" } timeout = "2h" }""",
    "voted": """gate human_approval { name = vote approvers = 2 exclude_starter = true }
        call work""",
    "merged": 'gate pr_checks { timeout = "2h" } gate pr_approval { min_approvals = 1 }',
    "worked": """call work { retries = 2 }
        if work.again { call work { on_fail = continue } }
        while work.again { max_iterations = 3 on_max_iter = continue call work }""",
    "wide": """parallel { name = both fail_fast = false call work call other }
        script tell { run = "echo {{what}}" }
        always { call notify { on_fail = continue } }""",
    "judged": """call work
        gate quality_gate { name = good source = work threshold = 70 on_fail = continue }""",
    "chosen": "call work gate human_review { options = work.options }",
    "fan": """foreach things { over = things max_parallel = 2 workflow = quick ordered = true
        on_cycle = warn on_child_fail = skip_dependents inputs = { what = "{{item.id}}" } }""",
    "listed": """foreach things { over = list max_parallel = 2 workflow = quick ordered = true
        on_cycle = warn on_child_fail = continue scope = { items = "{{what}}" } }""",
    "found": """foreach runs { over = workflow_runs max_parallel = 2 workflow = quick
        on_child_fail = continue filter = { older_than = "{{what}}" } }""",
    "parent": """call workflow gated { inputs { what = "{{what}}" } } call workflow quick""",
}
WORKFLOWS: Final = {name: f"workflow {name} {{ {INPUTS} {body} }}" for name, body in BODIES.items()}
STOPPED: Final = (types_pb2.RUN_STATUS_FAILED, types_pb2.RUN_STATUS_CANCELLED)
SPARE: Final = ("spare-a", "spare-b")
"""Names that requests may store and delete; those above are put back when they are gone."""


class Pool(Generic[T]):
    """The latest things of a kind, and some of the first."""

    def __init__(self, nothing: T) -> None:
        self._nothing = nothing
        self._items: deque[T] = deque(maxlen=KEPT)

    def add(self, item: T) -> None:
        """Keep it for a while."""
        self._items.append(item)

    def pick(self, chance: Random) -> T:
        """One of them, the latest ones rather; what stands for nothing if there is none."""
        drawn = chance.random() ** 2
        return self._items[-1 - int(drawn * len(self._items))] if self._items else self._nothing


NO_ID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass(slots=True)
class World:
    """What is known of it."""

    runs: Pool[str] = field(default_factory=lambda: Pool(NO_ID))
    steps: Pool[str] = field(default_factory=lambda: Pool(f"{NO_ID}/b.0000/e1/0"))
    gates: Pool[tuple[str, str, str]] = field(default_factory=lambda: Pool((NO_ID, NO_ID, "look")))
    """Id, run and name."""
    pull_requests: Pool[tuple[str, str, str]] = field(default_factory=lambda: Pool((NO_ID,) * 3))
    """Those of the gates that look at one."""
    stopped: Pool[str] = field(default_factory=lambda: Pool(NO_ID))
    """Runs that failed or were cancelled."""
    tasks: Pool[tuple[str, str, str]] = field(default_factory=lambda: Pool((NO_ID, "t", "result")))
    """Id, token, and the outcome that suits it."""
    cursors: Pool[str] = field(default_factory=lambda: Pool("AAAA"))
    pages: dict[str, Pool[Message | None]] = field(
        default_factory=lambda: defaultdict(lambda: Pool[Any](None))
    )
    """Requests for a further page, by the name of their type."""

    def learn(self, request: Message | None, answer: Any) -> None:
        """Take in what an answer tells."""
        token = getattr(answer, "next_page_token", "")
        if token and request is not None:
            further: Any = type(request)()
            further.CopyFrom(request)
            further.page_token = token
            self.pages[further.DESCRIPTOR.name].add(further)
        self._learn(answer, 0)

    def _learn(self, message: Any, depth: int) -> None:
        match message.DESCRIPTOR.name:
            case "Run":
                self.runs.add(message.id)
                if message.status in STOPPED:
                    self.stopped.add(message.id)
            case "Step":
                self.steps.add(message.id)
            case "Gate":
                gate = (message.id, message.run_id, message.name)
                self.gates.add(gate)
                if message.type.startswith("pr_"):
                    self.pull_requests.add(gate)
            case "TaskLease":
                self.tasks.add((message.task_id, message.token, outcome_of(message)))
            case _:
                pass
        if depth >= DEPTH:
            return
        for each, value in message.ListFields():
            if each.name == "cursor":
                self.cursors.add(value)
            elif each.message_type is not None and not each.message_type.GetOptions().map_entry:
                for part in value[:LOOKED_AT] if each.is_repeated else (value,):
                    self._learn(part, depth + 1)


def outcome_of(lease: Any) -> str:
    """The field of a report that a task of this kind is answered with."""
    answers = {workers_pb2.TASK_KIND_ITEMS: "items", workers_pb2.TASK_KIND_GATE: "gate_answer"}
    return answers.get(lease.kind, "result")


async def refresh(api: LiveApi, world: World) -> None:
    """Have workflows, a run of each, tasks in hand, and a run that has failed."""
    for source in WORKFLOWS.values():
        await api.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=source))
        # Not by name, which others may delete.
        world.learn(None, await api.runs.StartRun(runs_pb2.StartRunRequest(source=source)))
    answer = await api.workers.PollTasks(poll())
    for lease in answer.leases[:1]:
        report = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token)
        report.failure.message, report.failure.retryable = "no luck", False
        with contextlib.suppress(grpc.aio.AioRpcError):  # somebody reported on it in the meantime
            await api.workers.ReportTask(workers_pb2.ReportTaskRequest(report=report))
    world.learn(None, answer)
    pending = gates_pb2.ListGatesRequest(state=gates_pb2.GATE_STATE_PENDING)
    world.learn(None, await api.gates.ListGates(pending))
    failed = runs_pb2.ListRunsRequest(filter="status = failed", page_size=5)
    world.learn(None, await api.runs.ListRuns(failed))


def poll(
    worker_id: str = "keeper", namespace: str = "", wait_s: float = 0.05
) -> workers_pb2.PollTasksRequest:
    """Ask for tasks of every kind."""
    wait = Duration()
    wait.FromMilliseconds(int(wait_s * 1_000))
    return workers_pb2.PollTasksRequest(
        namespace=namespace,
        worker_id=worker_id,
        actions=["*"],
        item_providers=["*"],
        gate_types=["*"],
        scripts=True,
        max_tasks=6,
        wait=wait,
    )
