"""Values hold what the contract holds: walked over its descriptors, so that additions show."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

import pytest
from google.protobuf import message_factory

from runkon.v1 import events_pb2, gates_pb2, types_pb2, workflows_pb2
from runkon_client import values
from runkon_client.decode import (
    decode_blocked_on,
    decode_fan_out_item,
    decode_gate,
    decode_run,
    decode_step,
)
from runkon_client.decode_events import decode_event
from runkon_client.values import EventKind, UnknownBlocker, UnknownEvent

if TYPE_CHECKING:
    from enum import StrEnum

    from google.protobuf.descriptor import Descriptor, EnumDescriptor

PAYLOADS: dict[str, Any] = {
    field.name: field for field in events_pb2.RunEvent.DESCRIPTOR.oneofs_by_name["payload"].fields
}
EVENT_CLASSES: dict[EventKind, type[values.Event]] = {
    kind.kind: kind for kind in get_args(values.RunEvent)
}

# `config` is flattened: a run has one setting.
RENAMED = {"config": "fail_fast", "time": "at"}


def value_name(field: str) -> str:
    """The value's name of a field: instants end with `_at`, as participles."""
    participles = {
        "create_time": "created_at",
        "start_time": "started_at",
        "end_time": "ended_at",
        "scheduled_time": "scheduled_at",
        "approve_time": "approved_at",
        "dispatch_time": "dispatched_at",
        "complete_time": "completed_at",
        "open_time": "opened_at",
        "deadline_time": "deadline_at",
        "resolve_time": "resolved_at",
    }
    return RENAMED.get(field) or participles.get(field, field)


MESSAGES: dict[str, tuple[Descriptor, type]] = {
    descriptor.name: (descriptor, kind)
    for descriptor, kind in (
        (types_pb2.Run.DESCRIPTOR, values.Run),
        (types_pb2.Step.DESCRIPTOR, values.Step),
        (types_pb2.StepGate.DESCRIPTOR, values.StepGate),
        (types_pb2.StepSummary.DESCRIPTOR, values.StepSummary),
        (types_pb2.FanOutItem.DESCRIPTOR, values.FanOutItem),
        (types_pb2.FanOutCounts.DESCRIPTOR, values.FanOutCounts),
        (types_pb2.Metrics.DESCRIPTOR, values.Metrics),
        (types_pb2.Diagnostic.DESCRIPTOR, values.Diagnostic),
        (gates_pb2.Gate.DESCRIPTOR, values.Gate),
        (gates_pb2.GateVote.DESCRIPTOR, values.GateVote),
        (gates_pb2.PullRequest.DESCRIPTOR, values.PullRequest),
        (gates_pb2.PullRequestApproval.DESCRIPTOR, values.PullRequestApproval),
        (gates_pb2.PullRequestCheck.DESCRIPTOR, values.PullRequestCheck),
        (workflows_pb2.Workflow.DESCRIPTOR, values.Workflow),
        (workflows_pb2.WorkflowInput.DESCRIPTOR, values.WorkflowInput),
    )
}


@pytest.mark.parametrize(("descriptor", "kind"), MESSAGES.values(), ids=MESSAGES)
def test_a_value_has_every_field_of_its_message(descriptor: Descriptor, kind: type) -> None:
    """Under its own name, or the one that the house gives instants."""
    assert {value_name(field.name) for field in descriptor.fields} == {
        field.name for field in dataclasses.fields(kind)
    }


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_payload_is_an_event_of_its_own(payload: str) -> None:
    """A default message of each kind decodes to the class of that kind, with all its fields."""
    message = events_pb2.RunEvent(seq=3, run_id="r", generation=2, epoch=1)
    getattr(message, payload).SetInParent()

    event = decode_event(message)

    header = {field.name for field in dataclasses.fields(values.Event)}
    fields = {value_name(field.name) for field in PAYLOADS[payload].message_type.fields}
    assert type(event) is EVENT_CLASSES[EventKind(payload)]
    assert (event.seq, event.run_id, event.generation, event.epoch) == (3, "r", 2, 1)
    assert {field.name for field in dataclasses.fields(event)} == header | fields


def test_kinds_are_those_of_the_contract() -> None:
    """Filters name every payload, and nothing else."""
    kinds = {kind.value for kind in EventKind} - {"unknown"}

    assert kinds == set(PAYLOADS)
    assert set(EVENT_CLASSES) == set(EventKind)


def test_a_payload_of_a_newer_server_is_an_unknown_event() -> None:
    """It keeps its place in the sequence."""
    assert isinstance(decode_event(events_pb2.RunEvent(seq=1, run_id="r")), UnknownEvent)


ENUMS: dict[str, tuple[EnumDescriptor, type[StrEnum]]] = {
    kind.__name__: (file.enum_types_by_name[kind.__name__], kind)
    for file, kind in (
        (types_pb2.DESCRIPTOR, values.RunStatus),
        (types_pb2.DESCRIPTOR, values.StepStatus),
        (types_pb2.DESCRIPTOR, values.StepRole),
        (types_pb2.DESCRIPTOR, values.FanOutItemStatus),
        (types_pb2.DESCRIPTOR, values.Severity),
        (gates_pb2.DESCRIPTOR, values.GateState),
        (gates_pb2.DESCRIPTOR, values.GateDecision),
        (gates_pb2.DESCRIPTOR, values.ApprovalMode),
        (gates_pb2.DESCRIPTOR, values.ReviewDecision),
        (gates_pb2.DESCRIPTOR, values.CheckState),
        (workflows_pb2.DESCRIPTOR, values.WorkflowTrigger),
        (workflows_pb2.DESCRIPTOR, values.InputType),
        (events_pb2.DESCRIPTOR, values.ResumeMode),
    )
}


@pytest.mark.parametrize(("descriptor", "kind"), ENUMS.values(), ids=ENUMS)
def test_enums_are_those_of_the_contract(descriptor: EnumDescriptor, kind: type[StrEnum]) -> None:
    """Member by member, with `UNKNOWN` where the contract has no value or a newer server's."""
    prefix = descriptor.values[0].name.removesuffix("UNSPECIFIED")
    names = {value.name.removeprefix(prefix) for value in descriptor.values}

    assert set(kind.__members__) == names - {"UNSPECIFIED"} | {"UNKNOWN"}


@pytest.mark.parametrize(
    "kind", [field.name for field in types_pb2.BlockedOn.DESCRIPTOR.oneofs_by_name["kind"].fields]
)
def test_every_blocker_is_a_value_of_its_own(kind: str) -> None:
    """With the gate and the run it belongs to."""
    message = types_pb2.BlockedOn(gate_id="g", run_id="r")
    getattr(message, kind).SetInParent()

    blocker = decode_blocked_on(message)

    assert type(blocker).__name__ == type(getattr(message, kind)).__name__
    assert (blocker.gate_id, blocker.run_id) == ("g", "r")


def test_a_blocker_of_a_newer_server_still_names_its_gate() -> None:
    """So that it can be answered."""
    blocker = decode_blocked_on(types_pb2.BlockedOn(gate_id="g", run_id="r"))

    assert blocker == UnknownBlocker(gate_id="g", run_id="r")


def filled(descriptor: Descriptor) -> object:
    """A message with a value in every field, and those of its messages."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            getattr(message, field.name)["k"] = "v"
        elif field.message_type is not None:
            inner = filled(field.message_type)
            if field.is_repeated:
                getattr(message, field.name).append(inner)
            else:
                getattr(message, field.name).CopyFrom(inner)
        elif field.is_repeated:
            getattr(message, field.name).append(
                "x" if field.cpp_type == field.CPPTYPE_STRING else 1
            )
        elif field.cpp_type == field.CPPTYPE_STRING:
            setattr(message, field.name, "x")
        else:
            setattr(message, field.name, 1)
    return message


@pytest.mark.parametrize(
    ("descriptor", "decode"),
    [
        (types_pb2.Run.DESCRIPTOR, decode_run),
        (types_pb2.Step.DESCRIPTOR, decode_step),
        (gates_pb2.Gate.DESCRIPTOR, decode_gate),
        (types_pb2.FanOutItem.DESCRIPTOR, decode_fan_out_item),
    ],
    ids=["Run", "Step", "Gate", "FanOutItem"],
)
def test_no_field_is_forgotten(descriptor: Descriptor, decode: object) -> None:
    """Of a message with everything set, every field of the value has left its empty state."""
    assert callable(decode)

    value = decode(filled(descriptor))

    empty = [
        field.name
        for field in dataclasses.fields(value)
        if getattr(value, field.name) in ("", 0, None, (), {}, False)
    ]
    assert not empty
