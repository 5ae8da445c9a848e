"""Statements 141-146: what steps print, found, mended, checked and derived from by the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.stage import Row, Stage

START: Final = "<<<FLOW_OUTPUT>>>"
END: Final = "<<<END_FLOW_OUTPUT>>>"
REAL: Final = '{"markers": ["real"]}'
REVIEW: Final = """
fields:
  approved: boolean
  summary?: string
  findings?:
    type: array
    items:
      severity: string
"""
RULED: Final = (
    REVIEW
    + """
markers:
  many: findings.length > 1
  bad: findings[severity == high].length > 0
  fine: approved == true
"""
)


def block(text: str) -> str:
    """A block with this in it."""
    return f"{START}\n{text}\n{END}"


async def _said(stage: Stage, texts: Sequence[str], kind: str) -> list[Row]:
    """The rows of steps that printed these, one after the other, all of which complete."""
    step = "call" if kind == "call" else "script"
    keys = "" if kind == "call" else '{ run = "x" }'
    names = [f"s{number}" for number in range(len(texts))]
    await stage.start(" ".join(f"{step} {name} {keys}" for name in names))
    for name, text in zip(names, texts, strict=True):
        await stage.complete(name, raw_output=text)
    assert await stage.end() == "completed"
    return await stage.rows()


async def test_141_the_last_real_block_is_used(stage: Stage) -> None:
    """Not one that is only talked about, nor one inside a text of the block."""
    rows = await _said(
        stage,
        [
            f"{block('{}')} no, rather {block(REAL)}",
            f"Print {START} and the object:\n{block(REAL)}\nas in {START} above.",
            f'{block(REAL)}\nwhich `echo "{START}"` would print',
            block(json.dumps({"markers": ["real"], "context": f"{START} is how it begins"})),
            f"{START}\n\n  \t{REAL}{END}{END}",
        ],
        "call",
    )

    assert [row.markers for row in rows] == [("real",)] * 5


async def test_142_blocks_are_mended(stage: Stage) -> None:
    """Fences, commas before a bracket, unknown escapes; what was right stays as it is."""
    texts = {
        '```json\n{"a": 1}\n```': {"a": 1},
        '```\n{"a": 1}```': {"a": 1},
        '{"a": [1, 2,\n ], }': {"a": [1, 2]},
        r'{"a": "C:\path\new"}': {"a": "C:\\path\new"},
        r'{"a": "\d+ \u00e4 \u12 \" \\ \/"}': {"a": '\\d+ ä \\u12 " \\ /'},
        r'{"a": "x,]", "b": [1,]}': {"a": "x,]", "b": [1]},
    }
    rows = await _said(stage, [block(text) for text in texts], "script")

    assert [json.loads(row.structured_output) for row in rows] == list(texts.values())


async def test_143_what_is_no_flow_output_is_no_output(stage: Stage) -> None:
    """And no failure: the step said nothing that could be understood."""
    texts = [
        '{"markers": "m"}',
        '{"markers": [1]}',
        '{"context": 1}',
        '{"context": null}',
        "[1]",
        '{"a": }',
        '{"a": "unfinished',
    ]
    rows = await _said(stage, [block(text) for text in texts], "call")

    assert {(row.status, row.markers, row.context) for row in rows} == {("completed", (), "")}
    assert [row.result_text for row in rows] == [block(text) for text in texts]


async def test_144_extras_survive(stage: Stage) -> None:
    """Whatever their types are, in their order."""
    text = '{"z": {"n": [1.5, null]}, "context": "c", "a": "ä"}'
    (row,) = await _said(stage, [block(text)], "script")

    assert row.structured_output == '{"z":{"n":[1.5,null]},"context":"c","a":"ä"}'


async def test_145_output_that_breaks_its_schema_fails_the_attempt(stage: Stage) -> None:
    """The next one is told what was wrong. What an agent said that failed is not looked at."""
    await stage.start(
        "call a { output = review retries = 3 } call b { output = review on_fail = continue }",
        schemas={"review": REVIEW},
    )
    await stage.complete("a", raw_output=block('{"approved": "yes"}'))
    second = await stage.offered("a", times=2)
    await stage.complete("a", raw_output="nothing of the kind")
    third = await stage.offered("a", times=3)
    await stage.complete("a", raw_output=block('{"approved": true, "findings": [{}]}'))
    fourth = await stage.offered("a", times=4)
    await stage.complete("a", raw_output=block('{"approved": true, "more": 1}'))
    await stage.fail("b", "no answer")

    assert second.output_schema == "review"
    assert "`approved`: a boolean is wanted, not a string" in second.retry_error
    assert "there is no output" in third.retry_error
    assert "`findings[0].severity` is missing" in fourth.retry_error
    assert await stage.end() == "completed"
    rows = await stage.rows("a")
    assert [row.status for row in rows] == ["failed", "failed", "failed", "completed"]
    assert {row.error_code for row in rows[:3]} == {"OUTPUT_INVALID"}
    assert json.loads(rows[3].structured_output) == {"approved": True, "more": 1}
    failed = await stage.row("b")
    assert (failed.error, failed.structured_output, failed.markers) == ("no answer", "", ())


async def test_146_markers_follow_from_the_schemas_rules_or_from_the_default_ones(
    stage: Stage,
) -> None:
    """Sorted; a list of markers in the output counts in neither case."""
    output = {
        "approved": False,
        "summary": "no",
        "findings": [{"severity": "low"}, {"severity": "high"}],
        "markers": ["mine"],
    }
    await stage.start(
        "call a { output = ruled } call b { output = review } if b.not_approved { call c }",
        schemas={"ruled": RULED, "review": REVIEW},
    )
    await stage.complete("a", raw_output=block(json.dumps(output)))
    await stage.complete("b", raw_output=block(json.dumps(output)))
    await stage.complete("c")

    assert await stage.end() == "completed"
    assert (await stage.row("a")).markers == ("bad", "many")
    row = await stage.row("b")
    assert row.markers == ("has_findings", "has_high_findings", "not_approved")
    assert row.context == "no"
