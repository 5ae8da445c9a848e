"""One message of 4 MiB must take neither the server's memory nor its time, whatever fills it.

Bad inputs 18, 21 and 49: what is refused is refused for its number, before it is looked at one by
one, and no error grows with what was wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, workflows_pb2
from runkon_server.api.parsing.checks import VIOLATIONS_MAX
from runkon_server.api.parsing.table import validate
from runkon_server.dsl.ast import Definition, Input
from runkon_server.errors import InputsInvalidError, InvalidArgumentError
from runkon_server.runtime.inputs import complete_inputs
from support.rows import ulid

if TYPE_CHECKING:
    from google.protobuf.message import Message

RUN = ulid(1)
GATE = f"{RUN}/b.0001/e1/0"
MANY = 200_000
UNKNOWN_KIND = cast("events_pb2.EventKind.ValueType", 99)
NAMES = {f"n{number}": "" for number in range(MANY)}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (runs_pb2.StreamRunEventsRequest(run_id=RUN, kinds=[UNKNOWN_KIND] * MANY), "kinds"),
        (
            runs_pb2.ListRunEventsRequest(
                run_id=RUN, kinds=[events_pb2.EVENT_KIND_RUN_STARTED] * MANY
            ),
            "kinds",
        ),
        (runs_pb2.StartRunRequest(workflow="w", inputs=NAMES), "inputs"),
        (runs_pb2.StartRunRequest(workflow="w", labels=NAMES), "labels"),
        (workflows_pb2.PutWorkflowRequest(source="w", snippets=NAMES), "snippets"),
        (workflows_pb2.PutWorkflowRequest(source="w", output_schemas=NAMES), "output_schemas"),
        (
            gates_pb2.ResolveGateRequest(
                gate_id=GATE, decision=gates_pb2.GATE_DECISION_APPROVE, selections=[""] * MANY
            ),
            "selections",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_too_many_of_anything_are_refused_for_their_number_alone(
    request_: Message, field: str
) -> None:
    """Not one by one: each look at four million kinds would cost 4 µs and a violation."""
    with pytest.raises(InvalidArgumentError) as raised:
        validate(request_)

    assert [violation.field for violation in raised.value.violations] == [field]


def test_no_request_is_told_more_than_a_hundred_mistakes() -> None:
    """Of what may be there a thousand times, each with several fields."""
    approvals = [gates_pb2.PullRequestApproval() for _ in range(1_000)]
    seen = gates_pb2.PullRequest(head_commit="c0ffee", approvals=approvals)

    with pytest.raises(InvalidArgumentError) as raised:
        validate(gates_pb2.ReportPullRequestRequest(gate_id=GATE, pull_request=seen))

    assert len(raised.value.violations) == VIOLATIONS_MAX


def test_inputs_that_are_not_declared_do_not_repeat_a_long_list_each() -> None:
    """A thousand times a thousand names of 128 bytes would be 128 MB of text."""
    declared = tuple(
        Input(name=f"declared-{number:03}-{'x' * 100}", required=False) for number in range(1_000)
    )

    with pytest.raises(InputsInvalidError) as raised:
        complete_inputs(Definition(name="w", inputs=declared), {f"n{n}": "" for n in range(1_000)})

    assert sum(len(violation.description) for violation in raised.value.violations) < 4_000_000
