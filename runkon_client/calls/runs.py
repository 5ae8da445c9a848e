"""Calls of RunService."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypedDict

from runkon.v1 import events_pb2, runs_pb2, types_pb2
from runkon_client import values
from runkon_client.calls.call import Call, Page, encode_span, mint_request_id, reader
from runkon_client.calls.texts import require_fields, require_many, require_text
from runkon_client.decode import decode_fan_out_item, decode_run, decode_step
from runkon_client.decode_events import decode_event
from runkon_client.decode_explanations import decode_explanation
from runkon_client.errors import RunkonClientError, error_from_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BATCH_TIMEOUT_S: Final = 30.0
AWAIT_S: Final = 40.0  # below the contract's 50 s, so that one attempt fits proxies' minute
_AWAIT_MARGIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Started:
    """What StartRun answered."""

    run: values.Run
    started: bool
    replayed: bool


@dataclass(frozen=True, slots=True)
class Awaited:
    """What AwaitRun answered."""

    run: values.Run
    done: bool


@dataclass(frozen=True, slots=True)
class EventPage:
    """One page of events; more follow while `examined_seq` is below `head_seq`."""

    events: tuple[values.RunEvent, ...]
    examined_seq: int
    oldest_seq: int
    head_seq: int


@dataclass(frozen=True, slots=True)
class RunCount:
    """What CountRuns answered."""

    count: int
    is_exact: bool
    """False: there may be more, since only the newest 100,000 runs in question were looked at."""


class RunOptions(TypedDict, total=False):
    """Options of a start; limits as in the contract's StartRunRequest."""

    source: str
    """Text of a workflow, used for this run only, instead of a stored one's name."""
    output_schemas: Mapping[str, str]
    """Only with `source`: YAML by name."""
    snippets: Mapping[str, str]
    """Only with `source`: prompt snippets by name."""
    inputs: Mapping[str, str]
    key: str
    """The caller's own identity for the run; at most one live run holds it."""
    conflict_policy: values.ConflictPolicy
    request_id: str
    """Default: a new one for every start."""
    labels: Mapping[str, str]
    priority: int
    dry_run: bool
    fail_fast: bool
    """Default true: the body stops after its first failed step."""
    start_delay: timedelta
    trigger: str
    parent_run_id: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to start: one item of a batch. `workflow` is `NAME`, `NAME@VERSION`, or empty."""

    workflow: str = ""
    source: str = ""
    output_schemas: Mapping[str, str] = field(default_factory=dict)
    snippets: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    conflict_policy: values.ConflictPolicy = values.ConflictPolicy.FAIL
    request_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    dry_run: bool = False
    fail_fast: bool = True
    start_delay: timedelta = timedelta()
    trigger: str = ""
    parent_run_id: str = ""


def _start_request(
    namespace: str, spec: RunSpec, request_id: str, *, validate_only: bool = False
) -> runs_pb2.StartRunRequest:
    if bool(spec.workflow) == bool(spec.source):
        raise ValueError("a start needs either the name of a workflow or a source")
    require_fields(spec)
    request = runs_pb2.StartRunRequest(
        namespace=namespace,
        request_id=request_id,
        output_schemas=spec.output_schemas,
        snippets=spec.snippets,
        inputs=spec.inputs,
        key=spec.key,
        conflict_policy=runs_pb2.ConflictPolicy.Value(
            f"CONFLICT_POLICY_{spec.conflict_policy.name}"
        ),
        labels=spec.labels,
        priority=spec.priority,
        dry_run=spec.dry_run,
        trigger=spec.trigger,
        parent_run_id=spec.parent_run_id,
        start_delay=encode_span(spec.start_delay) if spec.start_delay else None,
        config=types_pb2.RunConfig(fail_fast=spec.fail_fast),
        validate_only=validate_only,
    )
    if spec.workflow:
        request.workflow = spec.workflow
    else:
        request.source = spec.source
    return request


def _started(answer: runs_pb2.StartRunResponse) -> Started:
    return Started(decode_run(answer.run), answer.started, answer.replayed)


def start_run(namespace: str, spec: RunSpec, *, validate_only: bool = False) -> Call[Started]:
    """StartRun."""
    request_id = "" if validate_only else spec.request_id or mint_request_id()
    return Call(
        "/runkon.v1.RunService/StartRun",
        _start_request(namespace, spec, request_id, validate_only=validate_only),
        reader(runs_pb2.StartRunResponse, _started),
    )


def start_runs(
    namespace: str, specs: Sequence[RunSpec], request_id: str
) -> Call[tuple[Started | RunkonClientError, ...]]:
    """BatchStartRuns; items without a request id take the batch's with their index added."""

    def outcome(item: runs_pb2.StartRunOutcome) -> Started | RunkonClientError:
        if item.WhichOneof("outcome") == "response":
            return _started(item.response)
        return error_from_status(item.error)

    return Call(
        "/runkon.v1.RunService/BatchStartRuns",
        runs_pb2.BatchStartRunsRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            requests=[_start_request(namespace, spec, spec.request_id) for spec in specs],
        ),
        reader(runs_pb2.BatchStartRunsResponse, lambda a: tuple(map(outcome, a.outcomes))),
        timeout_s=BATCH_TIMEOUT_S,
    )


def get_run(
    namespace: str, run_id: str, key: str, *, full: bool, at_sequence: int = 0
) -> Call[values.Run]:
    """GetRun, by id or by key."""
    if bool(run_id) == bool(key):
        raise ValueError("a run is asked for either by its id or by its key")
    require_text("run_id", run_id)
    request = runs_pb2.GetRunRequest(
        namespace=namespace,
        view=types_pb2.VIEW_FULL if full else types_pb2.VIEW_BASIC,
        at_sequence=at_sequence,
    )
    if run_id:
        request.run_id = run_id
    else:
        request.key = key
    return Call(
        "/runkon.v1.RunService/GetRun",
        request,
        reader(runs_pb2.GetRunResponse, lambda answer: decode_run(answer.run)),
    )


def list_runs(
    namespace: str, filter_text: str, *, oldest_first: bool, page_size: int, token: str
) -> Call[Page[values.Run]]:
    """ListRuns."""
    return Call(
        "/runkon.v1.RunService/ListRuns",
        runs_pb2.ListRunsRequest(
            namespace=namespace,
            page_size=page_size,
            page_token=token,
            filter=filter_text,
            order_by="create_time" if oldest_first else "",
        ),
        reader(
            runs_pb2.ListRunsResponse,
            lambda answer: Page(tuple(map(decode_run, answer.runs)), answer.next_page_token),
        ),
    )


def count_runs(namespace: str, filter_text: str) -> Call[RunCount]:
    """CountRuns."""
    return Call(
        "/runkon.v1.RunService/CountRuns",
        runs_pb2.CountRunsRequest(namespace=namespace, filter=filter_text),
        reader(runs_pb2.CountRunsResponse, lambda answer: RunCount(answer.count, answer.exact)),
    )


def cancel_run(
    namespace: str, run_id: str, reason: str, *, force: bool, request_id: str
) -> Call[values.Run]:
    """CancelRun."""
    return Call(
        "/runkon.v1.RunService/CancelRun",
        runs_pb2.CancelRunRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            run_id=run_id,
            reason=reason,
            force=force,
        ),
        reader(runs_pb2.CancelRunResponse, lambda answer: decode_run(answer.run)),
    )


def resume_run(
    namespace: str, run_id: str, *, from_step: str, restart: bool, request_id: str
) -> Call[values.Run]:
    """ResumeRun."""
    if from_step and restart:
        raise ValueError("a resume repeats either from a step on or everything")
    mode = events_pb2.RESUME_MODE_NORMAL
    if from_step or restart:
        mode = events_pb2.RESUME_MODE_RESTART if restart else events_pb2.RESUME_MODE_FROM_STEP
    return Call(
        "/runkon.v1.RunService/ResumeRun",
        runs_pb2.ResumeRunRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            run_id=run_id,
            mode=mode,
            from_step_id=from_step,
        ),
        reader(runs_pb2.ResumeRunResponse, lambda answer: decode_run(answer.run)),
    )


def explain_run(namespace: str, run_id: str) -> Call[values.Explanation]:
    """ExplainRun."""
    return Call(
        "/runkon.v1.RunService/ExplainRun",
        runs_pb2.ExplainRunRequest(namespace=namespace, run_id=run_id),
        reader(runs_pb2.ExplainRunResponse, lambda answer: decode_explanation(answer.explanation)),
    )


def dismiss_run(namespace: str, run_id: str, *, undo: bool, request_id: str) -> Call[values.Run]:
    """DismissRun."""
    return Call(
        "/runkon.v1.RunService/DismissRun",
        runs_pb2.DismissRunRequest(
            namespace=namespace,
            request_id=request_id or mint_request_id(),
            run_id=run_id,
            undo=undo,
        ),
        reader(runs_pb2.DismissRunResponse, lambda answer: decode_run(answer.run)),
    )


def delete_run(namespace: str, run_id: str, *, request_id: str) -> Call[int]:
    """DeleteRun; gives how many runs it removed."""
    return Call(
        "/runkon.v1.RunService/DeleteRun",
        runs_pb2.DeleteRunRequest(
            namespace=namespace, request_id=request_id or mint_request_id(), run_id=run_id
        ),
        reader(runs_pb2.DeleteRunResponse, lambda answer: answer.deleted),
    )


def await_run(namespace: str, run_id: str, wait_s: float) -> Call[Awaited]:
    """AwaitRun, for at most `wait_s`."""
    wait_s = max(0.0, min(wait_s, AWAIT_S))
    return Call(
        "/runkon.v1.RunService/AwaitRun",
        runs_pb2.AwaitRunRequest(
            namespace=namespace, run_id=run_id, timeout=encode_span(timedelta(seconds=wait_s))
        ),
        reader(
            runs_pb2.AwaitRunResponse, lambda answer: Awaited(decode_run(answer.run), answer.done)
        ),
        timeout_s=wait_s + _AWAIT_MARGIN_S,
    )


def list_steps(
    namespace: str, run_id: str, *, include_superseded: bool, token: str, at_sequence: int = 0
) -> Call[Page[values.Step]]:
    """ListSteps."""
    return Call(
        "/runkon.v1.RunService/ListSteps",
        runs_pb2.ListStepsRequest(
            namespace=namespace,
            run_id=run_id,
            page_token=token,
            include_superseded=include_superseded,
            at_sequence=at_sequence,
        ),
        reader(
            runs_pb2.ListStepsResponse,
            lambda answer: Page(tuple(map(decode_step, answer.steps)), answer.next_page_token),
        ),
    )


def get_step(namespace: str, step_id: str) -> Call[values.Step]:
    """GetStep."""
    return Call(
        "/runkon.v1.RunService/GetStep",
        runs_pb2.GetStepRequest(namespace=namespace, step_id=step_id),
        reader(runs_pb2.GetStepResponse, lambda answer: decode_step(answer.step)),
    )


def list_items(
    namespace: str, step_id: str, *, status: values.FanOutItemStatus | None, token: str
) -> Call[Page[values.FanOutItem]]:
    """ListFanOutItems."""
    wanted = types_pb2.FAN_OUT_ITEM_STATUS_UNSPECIFIED
    if status is not None:
        wanted = types_pb2.FanOutItemStatus.Value(f"FAN_OUT_ITEM_STATUS_{status.name}")
    return Call(
        "/runkon.v1.RunService/ListFanOutItems",
        runs_pb2.ListFanOutItemsRequest(
            namespace=namespace, step_id=step_id, status=wanted, page_token=token
        ),
        reader(
            runs_pb2.ListFanOutItemsResponse,
            lambda answer: Page(
                tuple(map(decode_fan_out_item, answer.items)), answer.next_page_token
            ),
        ),
    )


def encode_kinds(kinds: Sequence[values.EventKind]) -> list[events_pb2.EventKind.ValueType]:
    """Numbers of the kinds; `UNKNOWN` is refused, it names none."""
    require_many("kinds", kinds)
    return [events_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in kinds]


def list_run_events(
    namespace: str,
    run_id: str,
    *,
    after_seq: int,
    kinds: Sequence[values.EventKind],
    page_size: int,
) -> Call[EventPage]:
    """ListRunEvents."""
    return Call(
        "/runkon.v1.RunService/ListRunEvents",
        runs_pb2.ListRunEventsRequest(
            namespace=namespace,
            run_id=run_id,
            after_seq=after_seq,
            page_size=page_size,
            kinds=encode_kinds(kinds),
        ),
        reader(
            runs_pb2.ListRunEventsResponse,
            lambda answer: EventPage(
                tuple(map(decode_event, answer.events)),
                answer.examined_seq,
                answer.oldest_seq,
                answer.head_seq,
            ),
        ),
    )
