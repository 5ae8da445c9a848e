"""What steps said, interpreted: blocks, repairs, schemas."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.core.facts import Outcome, Reported
from runkon_server.core.outputs import OUTPUT_BYTES_MAX, PLAIN_CONTEXT_LENGTH, interpret
from runkon_server.core.outputs_block import END, START, find_block, read_block
from runkon_server.core.outputs_json import JSON_DEPTH_MAX, OutputError, read_json, write_json
from runkon_server.core.outputs_schema import Schema, schema_of

SCHEMA = schema_of(
    "review",
    {"fields": {"approved": "boolean", "summary?": "string", "findings?": "array"}},
)


def block(text: str) -> str:
    """A block with this in it."""
    return f"{START}\n{text}\n{END}"


def said(
    raw: str | None = None,
    *,
    schema: Schema | None = None,
    is_script: bool = False,
    output: str | None = None,
) -> Reported:
    """A report of success as it counts."""
    report = Reported(
        task_id="t", outcome=Outcome.COMPLETED, raw_output=raw, structured_output=output
    )
    return interpret(report, schema, is_script=is_script)


def test_101_script_output_comes_from_its_block() -> None:
    """Markers, context, and the whole object as structured output."""
    text = block('{"markers": ["m"], "context": "did it", "base": "main"}')
    report = said(f"noise\n{text}\nmore", is_script=True)

    assert (report.markers, report.context) == (("m",), "did it")
    assert json.loads(report.structured_output or "")["base"] == "main"
    assert report.result_text == f"noise\n{text}\nmore"
    assert report.raw_output is None


def test_102_plain_script_output_is_its_context() -> None:
    """The first 2,000 characters; no markers, no structured output."""
    report = said("ä" * 3_000, is_script=True)

    assert report.context == "ä" * PLAIN_CONTEXT_LENGTH
    assert (report.markers, report.structured_output) == ((), None)


def test_agent_without_a_schema_has_no_structured_output() -> None:
    """Its block still gives markers and context; plain text gives neither."""
    told = said(block('{"markers": ["m"], "context": "c", "x": "1"}'))
    plain = said("just words")

    assert (told.markers, told.context, told.structured_output) == (("m",), "c", None)
    assert (plain.markers, plain.context, plain.result_text) == ((), "", "just words")


def test_report_without_raw_output_counts_as_it_is() -> None:
    """The worker has interpreted it itself; a result text is never looked into."""
    report = Reported(
        task_id="t", outcome=Outcome.COMPLETED, result_text=block("{}"), markers=("m",)
    )

    assert interpret(report, is_script=False) is report


@pytest.mark.parametrize(
    "text",
    [
        f"{block('{}')} first, then {block('[1]')}",
        f"write {START} and then the object\n{block('[1]')}\nas in {START} above",
        block("[1]") + f'\nand `echo "{START}"` prints the delimiter',
        block(json.dumps({"context": f"{START} is how it begins"})) + block("[1]"),
        f"{START}[1]{END}{END}",
        f"{START}\n\n  \t[1]{END}",
    ],
)  # fmt: skip
def test_141_last_real_block_is_used(text: str) -> None:
    """Talk about the delimiters is no block, nor is one inside a JSON text."""
    found = find_block(text)

    assert found is not None
    assert read_block(found) == [1]


@pytest.mark.parametrize("text", ["", START, f"{START} {{}}", f"{START} words {END}", END + START])
def test_141_no_block_without_both_delimiters(text: str) -> None:
    """Nothing is found, and nothing goes wrong."""
    assert find_block(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}```', {"a": 1}),
        ('```json{"a": 1}```', {"a": 1}),
        ('{"a": [1, 2,\n ], }', {"a": [1, 2]}),
        (r'{"a": "C:\path\new"}', {"a": "C:\\path\new"}),
        (r'{"a": "\d+ \u00e4 \u12 \" \\ \/"}', {"a": '\\d+ ä \\u12 " \\ /'}),
        (r'{"a": "x,]", "b": [1,]}', {"a": "x,]", "b": [1]}),
        ('{"a": "x,]"}', {"a": "x,]"}),
    ],
)
def test_142_blocks_are_mended(text: str, value: object) -> None:
    """Fences, commas at the end, unknown escapes; valid texts are unharmed."""
    assert read_block(find_block(block(text)) or "") == value


@pytest.mark.parametrize(
    "text",
    [
        '{"markers": "m"}',
        '{"markers": [1]}',
        '{"context": 1}',
        '{"context": null}',
        "[1]",
        '{"a": }',
        '{"a": "unfinished',
        '{"a": NaN}',
        '{"a": "\\ud800"}',
    ],
)
def test_143_what_is_no_flow_output_is_no_output(text: str) -> None:
    """Wrong types and broken JSON are not an error; the step said nothing."""
    report = said(block(text))

    assert report.outcome is Outcome.COMPLETED
    assert (report.markers, report.context, report.structured_output) == ((), "", None)


def test_144_extras_survive() -> None:
    """Also those that are no texts, in their order."""
    report = said(block('{"z": {"n": [1.5, null]}, "context": "c", "a": "ä"}'), is_script=True)

    assert report.structured_output == '{"z":{"n":[1.5,null]},"context":"c","a":"ä"}'


def test_145_output_that_breaks_the_schema_fails_the_attempt() -> None:
    """Which may be tried again, and is told what was wrong."""
    wrong = said(block('{"approved": "yes"}'), schema=SCHEMA)
    missing = said("nothing of the kind", schema=SCHEMA)
    broken = said(block('{"approved": }'), schema=SCHEMA)

    assert {report.outcome for report in (wrong, missing, broken)} == {Outcome.FAILED}
    assert "`approved`: a boolean is wanted, not a string" in (wrong.error or "")
    assert "there is no output" in (missing.error or "")
    assert "cannot be read" in (broken.error or "")
    assert wrong.error_code == "OUTPUT_INVALID"
    assert wrong.retryable
    assert wrong.result_text == block('{"approved": "yes"}')


def test_146_schema_derives_markers_and_context() -> None:
    """From the block; a list of markers in it does not count."""
    text = '{"approved": false, "markers": ["mine"], "summary": "no", "extra": 1}'
    report = said(block(text), schema=SCHEMA)

    assert report.markers == ("not_approved",)
    assert report.context == "no"
    assert json.loads(report.structured_output or "") == json.loads(text)


def test_structured_output_of_a_worker_is_checked_too() -> None:
    """What the worker leaves open is derived; what it says itself stays."""
    derived = said(output='{"approved":false}', schema=SCHEMA)
    wrong = said(output="{}", schema=SCHEMA)
    own = interpret(
        Reported(
            task_id="t",
            outcome=Outcome.COMPLETED,
            structured_output='{"approved":false}',
            markers=("mine",),
            context="own",
        ),
        SCHEMA,
        is_script=False,
    )

    assert derived.markers == ("not_approved",)
    assert wrong.outcome is Outcome.FAILED
    assert (own.markers, own.context) == (("mine",), "own")


@pytest.mark.parametrize(
    "markers",
    [[f"m{number}" for number in range(101)], ["ä" * 65]],
    ids=["many", "long"],
)
def test_markers_beyond_the_limits_fail_the_step(markers: list[str]) -> None:
    """For good: the next attempt would say the same."""
    report = said(block(json.dumps({"markers": markers})))

    assert report.outcome is Outcome.FAILED
    assert report.error_code == "OUTPUT_LIMIT"
    assert not report.retryable


def test_texts_of_a_step_stay_within_their_bytes_together() -> None:
    """Of what was printed, as much is kept as what was made of it leaves room for."""
    output = block(json.dumps({"n": "x" * 600_000}))
    report = said("ä" * 200_000 + output, is_script=True)
    sizes = [len((text or "").encode()) for text in (report.result_text, report.structured_output)]
    doubled = said(block(json.dumps({"context": "x" * 600_000})), is_script=True)

    assert sum(sizes) <= OUTPUT_BYTES_MAX < sum(sizes) + 4
    assert (doubled.outcome, doubled.error_code) == (Outcome.FAILED, "OUTPUT_LIMIT")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 100_000, "OUTPUT_LIMIT"),
        ("[" * (JSON_DEPTH_MAX + 1) + "]" * (JSON_DEPTH_MAX + 1), "OUTPUT_LIMIT"),
        ("9" * 5_000, "OUTPUT_INVALID"),
        ("1e999", "OUTPUT_INVALID"),
        ("Infinity", "OUTPUT_INVALID"),
        (r'"\u0000"', "OUTPUT_INVALID"),
        (r'{"\ud800": 1}', "OUTPUT_INVALID"),
    ],
)
def test_hostile_json_is_an_ordinary_error(text: str, code: str) -> None:
    """No recursion error, and nothing that a database refuses."""
    with pytest.raises(OutputError) as caught:
        read_json(text)

    assert caught.value.code == code


def test_a_deep_but_allowed_value_is_read() -> None:
    """Exactly at the limit; and an escaped escape is not a NUL."""
    text = "[" * JSON_DEPTH_MAX + "]" * JSON_DEPTH_MAX

    assert write_json(read_json(text)) == text
    assert read_json(r'"\\u0000"') == r"\u0000"


@pytest.mark.parametrize("piece", ['\\"', "[,", "```\n", f"{START}\n", '"', "\\", ", "])
def test_hostile_blocks_take_linear_time(piece: str) -> None:
    """Repeated a hundred thousand times, each is read or refused at once, by the suite's limit."""
    text = START + "{" + piece * 100_000 + END

    found = find_block(text)
    if found is not None:
        with pytest.raises(OutputError):
            read_block(found)


@given(st.text(), st.booleans())
def test_any_text_can_be_interpreted(text: str, is_script: bool) -> None:  # noqa: FBT001
    """Whatever was printed; hypothesis draws it."""
    report = said(text.replace("x", START).replace("y", END), is_script=is_script)

    assert report.outcome in (Outcome.COMPLETED, Outcome.FAILED)
