"""Events as bytes are the events as messages, whatever is in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runkon.v1 import events_pb2, types_pb2
from runkon_server.api.encoding import encode_event
from runkon_server.api.events import render_event
from runkon_server.api.render.steps import ALIKE
from runkon_server.core.events import KINDS
from runkon_server.store.reads.events import EventRow
from support.rows import ulid

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=200)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
VALUES: dict[int, st.SearchStrategy[Any]] = {9: TEXTS, 5: NUMBERS, 3: NUMBERS, 8: st.booleans()}
"""By the type of a field, as descriptors number them."""


def values_of(column: str) -> st.SearchStrategy[Any]:
    """What may stand in a column of a step: null as well."""
    field = types_pb2.Step.DESCRIPTOR.fields_by_name[ALIKE[column]]
    values = VALUES[field.type]
    return st.none() | (st.lists(values, max_size=3) if field.is_repeated else values)


METRICS = st.fixed_dictionaries(
    {}, optional={"num_turns": st.integers(0, 9), "cost_usd": st.floats(0, 9)}
)
COLUMNS = st.fixed_dictionaries(
    {
        "id": TEXTS,
        "status": st.sampled_from(["running", "completed", "skipped", "waiting", "dreaming"]),
    },
    optional={
        **{column: values_of(column) for column in ALIKE if column != "id"},
        "role": st.sampled_from(["actor", "script", "dreamer"]),
        "started_at": st.just("2026-03-01T12:00:00.123456+00:00"),
        "metrics": METRICS,
        "of_a_newer_server": NUMBERS,
    },
)
STEP_KINDS = [
    kind for kind in sorted(KINDS) if kind.startswith("step_") and kind != "step_progress"
]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(STEP_KINDS),
    columns=COLUMNS,
    truncated=st.booleans(),
    seq=st.integers(1, 2**40),
    generation=st.integers(0, 300),
    at=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the strategy wants naive bounds
)
def test_bytes_and_messages_say_the_same(
    kind: str, columns: dict[str, Any], seq: int, generation: int, at: datetime, *, truncated: bool
) -> None:
    """Any columns, those of a newer server among them, in any step's event."""
    payload = {"step": columns, "truncated": truncated}
    row = EventRow(ulid(1), seq, 1, kind, at, generation, json.dumps(payload))

    assert events_pb2.RunEvent.FromString(encode_event(row)) == render_event(row)
