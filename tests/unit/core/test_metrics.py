"""Numbers beside results."""

from __future__ import annotations

import pytest

from runkon_server.core.metrics import add_metrics, parse_metrics


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0), ("0.25", 0.25), ("1e-05", 1e-05), ("1E+2", 100.0), ("9" * 18, 1e15),
        ("", None), ("-1", None), ("nan", None), ("inf", None), ("1e999", None), ("0x10", None),
        ("1_000", None), (" 1", None), ("٣", None), ("9" * 19, None),
    ],
)  # fmt: skip
def test_costs(text: str, value: float | None) -> None:
    """Plain decimals and what Python prints for small ones; nothing that is not a number."""
    found = parse_metrics({"cost_usd": text})

    assert found == (None if value is None else {"cost_usd": value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("12", 12),
        ("12.9", 12),
        ("1e3", None),
        ("-1", None),
        ("x", None),
        ("1\n", None),
        ("9" * 19, None),
    ],
)
def test_counts(text: str, value: int | None) -> None:
    """Whole numbers; a fraction is dropped."""
    found = parse_metrics({"duration_ms": text})

    assert found == (None if value is None else {"duration_ms": value})


def test_sums_stop_where_64_bits_end() -> None:
    """And leave what they are made from alone."""
    totals = {"num_turns": 2**63 - 2, "cost_usd": 1.5}
    sums = add_metrics(totals, {"num_turns": 5, "cost_usd": 1e15, "input_tokens": 1})

    assert sums == {"num_turns": 2**63 - 1, "cost_usd": 1e15, "input_tokens": 1}
    assert totals == {"num_turns": 2**63 - 2, "cost_usd": 1.5}
