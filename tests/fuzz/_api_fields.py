"""What stands in a field of a request as its users write it, by the field's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from fuzz._api_values import JSONS, LIMITS, plain_filter, word
from fuzz._api_world import KEYS, SPARE, WORKFLOWS
from runkon.v1 import events_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fuzz._api_values import Scalar
    from fuzz._api_world import World

    Typical = Callable[[Random, World], Any]

REQUIRED: Final = frozenset(
    {"run_id", "step_id", "gate_id", "workflow", "source", "name", "worker_id", "actions",
     "task_id", "token", "decision", "action", "report", "heartbeat", "pull_request",
     "head_commit", "item_id",
     "message", "requests", "hello", "concurrency", "reviewer", "commit", "credit",
     "gate_name", "reason"}
)  # fmt: skip
SPANS: Final = ("1h", "99999999999999999999w", "1h30m", "\u0661h", "0s", "1.5h", "-1h")
NAMES: Final = (*WORKFLOWS, *SPARE)


def _namespace(chance: Random, _: World) -> str:
    return "elsewhere" if chance.random() < 0.03 else chance.choice(("", "", "default"))


def _request_id(chance: Random, _: World) -> str:
    """None, one of few, which others have used, or one of its own."""
    return chance.choice(("", "", f"r-{chance.randrange(40)}", f"r-{chance.randrange(10**9)}"))


def _source(chance: Random, _: World) -> str:
    kind = chance.random()
    if kind < 0.4:
        return f"workflow {chance.choice(SPARE)} {{ call work }}"
    return chance.choice((*WORKFLOWS.values(), *WORKFLOWS.values(), "workflow w { cal x }"))


def _inputs(chance: Random, _: World) -> dict[str, str]:
    what = chance.choice((word(chance), chance.choice(JSONS), chance.choice(SPANS)))
    more = {"what": what, "flag": chance.choice(("true", "FALSE")), "seconds": "nan"}
    return chance.choice(({}, {"what": what}, more))


BY_NAME: Final[dict[str, Typical]] = {
    "namespace": _namespace,
    "request_id": _request_id,
    "workflow": lambda chance, _: chance.choice((*NAMES, *WORKFLOWS, "quick@1", "gated@1")),
    "workflow_name": lambda chance, _: chance.choice(("", "", *NAMES)),
    "name": lambda chance, _: chance.choice((*NAMES, *SPARE)),
    "source": _source,
    "key": lambda chance, _: chance.choice(KEYS),
    "run_id": lambda chance, world: world.runs.pick(chance),
    "parent_run_id": lambda chance, world: world.runs.pick(chance),
    "step_id": lambda chance, world: world.steps.pick(chance),
    "from_step_id": lambda chance, world: world.steps.pick(chance),
    "gate_id": lambda chance, world: world.gates.pick(chance)[0],
    "gate_name": lambda chance, world: world.gates.pick(chance)[2],
    "task_id": lambda chance, world: world.tasks.pick(chance)[0],
    "token": lambda chance, world: world.tasks.pick(chance)[1],
    "cursor": lambda chance, world: world.cursors.pick(chance),
    "page_token": lambda _chance, _world: "",
    "page_size": lambda chance, _: chance.choice((0, 1, 1, 2, 10, 500)),
    "filter": lambda chance, _: plain_filter(chance),
    "order_by": lambda chance, _: chance.choice(("", "create_time desc", "create_time")),
    "at_sequence": lambda chance, _: chance.choice((0, 0, 1, 2, 3, 5, 9)),
    "after_seq": lambda chance, _: chance.choice((0, 0, 1, 2, 3, 5)),
    "version": lambda chance, _: chance.choice((0, 0, 1, 2)),
    "priority": lambda chance, _: chance.choice((-100, 0, 7, 100)),
    "validate_only": lambda chance, _: chance.random() < 0.2,
    "dry_run": lambda chance, _: chance.random() < 0.2,
    "for_all": lambda chance, _: chance.random() < 0.2,
    "inputs": _inputs,
    "labels": lambda chance, _: chance.choice(({}, {"team": word(chance)}, {"queue": "gpu"})),
    "output_schemas": lambda chance, _: chance.choice(({}, {}, {"plan": chance.choice(JSONS[:4])})),
    "snippets": lambda chance, _: chance.choice(({}, {}, {"tone": word(chance)})),
    "worker_id": lambda chance, _: f"worker-{chance.randrange(8)}",
    "actions": lambda chance, _: chance.choice(("*", "*", "work", "other", "notify")),
    "action": lambda chance, _: chance.choice(("work", "other", "notify", "echo", "none")),
    "item_providers": lambda chance, _: chance.choice(("*", "things")),
    "gate_types": lambda chance, _: chance.choice(("*", "pr_checks", "custom")),
    "queues": lambda chance, _: chance.choice(("*", "gpu", "default")),
    "tokens_in_hand": lambda chance, world: world.tasks.pick(chance)[1],
    "max_tasks": lambda chance, _: chance.choice((0, 1, 3)),
    "concurrency": lambda chance, _: chance.choice((1, 4, 50)),
    "rate_per_second": lambda chance, _: chance.choice((0.5, 10.0, 100_000.0)),
    "credit": lambda chance, _: chance.choice((0, 1, 3)),
    "selections": lambda chance, _: chance.choice(("yes", "no")),
    "type": lambda chance, _: chance.choice(("", "human_review", "human_approval", "pr_checks")),
    "structured_output": lambda chance, _: chance.choice(("", *JSONS)),
    "markers": lambda chance, _: chance.choice(("again", "done")),
    "metadata": lambda chance, _: chance.choice(({}, {"cost_usd": "0.1", "num_turns": "3"})),
    "raw_output": lambda _chance, _world: "",
    "scope": lambda chance, _: {"project": word(chance)},
    "context": lambda chance, _: word(chance),
}  # fmt: skip
"""Of fields that are lists: what one of their values is."""


def typical_map(name: str, chance: Random, world: World) -> dict[str, str]:
    """What a map is meant for."""
    made = BY_NAME[name](chance, world) if name in BY_NAME else {}
    return made if isinstance(made, dict) else {word(chance): str(made)}


def typical_span(name: str, chance: Random) -> Duration:
    """A duration that the field is meant for, and short where the call would wait."""
    milliseconds = chance.choice((0, 1, 20))
    if name == "heartbeat_interval":
        milliseconds = 1_000 * chance.choice((1, 60))
    elif name in ("older_than", "keep_for"):
        milliseconds = 3_600_000 * chance.choice((1, 24))
    span = Duration()
    span.FromMilliseconds(milliseconds)
    return span


def typical(field: FieldDescriptor, owner: str, chance: Random, world: World) -> Scalar:
    """A value that a field of the message `owner` is meant for; of a list, one of its values."""
    if field.name in BY_NAME and not (field.name == "name" and owner == "PullRequestCheck"):
        value: Scalar = BY_NAME[field.name](chance, world)
        return value
    if field.enum_type is not None:
        known = field.enum_type.values
        is_needed = field.is_repeated or field.name in REQUIRED or owner == "PullRequestCheck"
        return chance.choice(known[1:] if is_needed else known).number
    if field.cpp_type in LIMITS:
        return chance.randrange(4)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        inside = field.containing_oneof
        return (inside is not None and len(inside.fields) > 1) or chance.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return chance.random()
    return word(chance)


def make_consistent(message: Any, chance: Random, world: World) -> None:
    """Have fields that belong together say the same."""
    match message.DESCRIPTOR.name:
        case "TaskReport":
            _answer(message, chance, world)
        case "TaskHeartbeat":
            message.task_id, message.token, _ = world.tasks.pick(chance)
        case "StepResult":
            for name in ("child_run_id", "raw_output"):
                message.ClearField(name)
        case "RunGate" if message.WhichOneof("run") == "run_id":
            _, message.run_id, message.gate_name = world.gates.pick(chance)
        case "StartRunRequest" if message.WhichOneof("definition") != "source":
            message.ClearField("output_schemas")
            message.ClearField("snippets")
        case "ResumeRunRequest" if message.mode == events_pb2.RESUME_MODE_FROM_STEP:
            message.run_id = message.from_step_id.partition("/")[0]
        case "ResumeRunRequest":
            message.ClearField("from_step_id")
            message.run_id = world.stopped.pick(chance)
        case "DismissRunRequest" | "DeleteRunRequest":
            message.run_id = world.stopped.pick(chance)
        case "ReportPullRequestRequest" if message.WhichOneof("target") == "gate_id":
            message.gate_id = world.pull_requests.pick(chance)[0]
        case "BatchStartRunsRequest":
            for each in message.requests:
                each.ClearField("namespace")
        case "GetRetentionRequest" | "SetRetentionRequest" if message.for_all:
            message.ClearField("namespace")


def _answer(report: Any, chance: Random, world: World) -> None:
    """Report on a task in hand, as its kind is reported on."""
    report.task_id, report.token, suits = world.tasks.pick(chance)
    if suits == "result" and report.WhichOneof("outcome") in ("items", "gate_answer"):
        report.result.result_text = word(chance)
    elif suits != "result" and report.WhichOneof("outcome") == "result":
        report.cancelled.SetInParent()
