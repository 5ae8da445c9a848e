"""What is shown about a word and where it leads, `|` standing in it; outlines and quick fixes."""

from __future__ import annotations

import pytest

from runkon_server.dsl.diagnostics import did_you_mean
from runkon_server.dsl.editing.defining import define
from runkon_server.dsl.editing.document import Document
from runkon_server.dsl.editing.fixing import fixes, suggestion
from runkon_server.dsl.editing.hovering import hover
from runkon_server.dsl.editing.laying_out import lay_out
from runkon_server.dsl.editing.outlining import Symbol, outline
from support.editing import company, marked
from support.workflows import read, short

CHILD = """\
workflow child {
  meta { title = "The child" description = "Does it" }
  inputs { who required description = "whom" loud boolean tone default = "soft" }
  call greet
}
"""


def shown(text: str) -> str | None:
    document, offset = marked(text)
    found = hover(document, offset, company(document, CHILD))
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wor|kflow w { }", ["whole of a file"]),
        ("workflow w { ca|ll a }", ["One task for a worker"]),
        ("workflow w { call a { retrie|s = 1 } }", ["up to 20", "default `0`", "of `call`"]),
        ("workflow w { script s { |run = x } }", ["required", "of `script`"]),
        ("workflow w { gate human_review { timeout| = 5 } }", ["24h", "90 days"]),
        ("workflow w { call a { timeout| = 5 } }", ["at most 24 hours"]),
        ("workflow w { do { max_iter|ations = 1 }", ["`do … while`", "required"]),
        ("workflow w { while a.b { max_iter|ations = 1 } }", ["`while`", "up to 1000"]),
        ("workflow w { call workflow child { in|puts { } } }", ["map"]),
        ("workflow w { gate human_re|view { } }", ["People approve or reject"]),
        ("workflow w { gate human_review { on_timeout = con|tinue } }", ["goes on behind it"]),
        ("workflow w { inputs { a bo|olean } }", ["`true` or `false`"]),
        ("workflow w {\ncall plan\nif pl|an.ok { } }", ["`call plan`, line 2", "`ok`"]),
        ("workflow w {\ncall plan\nif plan.o|k { } }", ["Marker `ok`", "`call plan`, line 2"]),
        ("workflow w { if pl|an.ok { } }", ["No step `plan`"]),
        ("workflow w { call workflow child if gre|et.ok { } }", ["of workflow `child`"]),
        ('workflow w { call "ops/sc|an.md" }', ["Step `scan`"]),
        ("workflow w { call workflow ch|ild }", ["The child", "Does it", "`who`: text, required"]),
        ("workflow w { foreach f { workflow = chil|d } }", ["`loud`: boolean"]),
        ("workflow w { call workflow child { inputs { to|ne = x } } }", ['default `"soft"`']),
        ("workflow w { inputs { dry boolean } if dr|y { } }", ["Input `dry`: boolean"]),
        ('workflow w { inputs { who } script s { run = "a {{ wh|o }}" } }', ["Input `who`"]),
        (
            'workflow w { script s { run = "{{prior_con|text}}" } }',
            ["newest step that has completed"],
        ),
        ('workflow w { inputs { who } script s { run = "{{inputs.w|ho}}" } }', ["Input `who`"]),
    ],
    ids=short,
)
def test_hovering_tells_what_a_word_is(text: str, words: list[str]) -> None:
    """Keywords, options with type and default, steps with their place, inputs, variables."""
    found = shown(text)

    assert found is not None
    assert [word for word in words if word not in found] == []


@pytest.mark.parametrize(
    "text",
    [
        "workflow w { call a { |} }",
        "workflow w { // ca|ll\n }",
        'workflow w { meta { title = "ca|ll" } }',
        "workflow w { call a { nonsen|se = 1 } }",
        "workflow w { call workflow unkn|own }",
        "workflow w { gate dep|loy { } }",
        "workflow w { call a { retries = 1|0 } }",
        'workflow w { script s { run = "{{unkn|own}}" } }',
        "|",
    ],
    ids=short,
)
def test_hovering_is_silent_where_there_is_nothing_to_say(text: str) -> None:
    """Comments, free texts, what nobody knows."""
    assert shown(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workflow w { call plan if pl|an.ok { } }", [("w.wf", "plan", 1, 18)]),
        ("workflow w { call plan if plan.o|k { } }", [("w.wf", "plan", 1, 18)]),
        (
            "workflow w { call a while |a.b { call a } }",
            [("w.wf", "a", 1, 18), ("w.wf", "a", 1, 37)],
        ),
        ("workflow w { do { call a } while |a.b }", [("w.wf", "a", 1, 23)]),
        ("workflow w { call p parallel { call x { if = |p.m } } }", [("w.wf", "p", 1, 18)]),
        ('workflow w { call p parallel { call x { if = "p.|m" } } }', [("w.wf", "p", 1, 18)]),
        ("workflow w { call p gate quality_gate { source = |p } }", [("w.wf", "p", 1, 18)]),
        ("workflow w { call p gate human_review { options = p.|f } }", [("w.wf", "p", 1, 18)]),
        ("workflow w { parallel { name = all call x } if |all.m { } }", [("w.wf", "all", 1, 31)]),
        ("workflow w { inputs { dry boolean } if |dry { } }", [("w.wf", "dry", 1, 22)]),
        ("workflow w { call workflow |child }", [("other0.wf", "child", 1, 9)]),
        ("workflow w { foreach f { workflow = child| } }", [("other0.wf", "child", 1, 9)]),
        (
            "workflow w { call workflow child { inputs { |who = x } } }",
            [("other0.wf", "who", 3, 11)],
        ),
        ("workflow w { call workflow child if |greet.m { } }", [("other0.wf", "greet", 4, 7)]),
        ('workflow w { inputs { a } script s { run = "{{|a}}" } }', [("w.wf", "a", 1, 22)]),
        ("workflow w { call |plan }", []),
        ("workflow w { if |missing.m { } }", []),
        ("workflow w { call workflow |missing }", []),
    ],
    ids=short,
)
def test_definitions_lead_to_steps_inputs_and_files(
    text: str, expected: list[tuple[str, str, int, int]]
) -> None:
    """Label, word, line (from 1) and column (from 0) of each target."""
    document, offset = marked(text)

    targets = define(document, offset, company(document, CHILD))

    assert [
        (target.document.label, target.mention.text, line, column - 1)
        for target in targets
        for line, column in [target.document.tokens.source.position(target.mention.start)]
    ] == expected


def names(symbols: tuple[Symbol, ...]) -> list[object]:
    return [
        [symbol.name, names(symbol.children)] if symbol.children else symbol.name
        for symbol in symbols
    ]


def test_the_outline_has_inputs_steps_and_blocks() -> None:
    """In source order, one inside the other; maps are no symbols."""
    text = """\
workflow w {
  inputs { a  b boolean }
  call plan { with = [x] }
  do { call "x/y.md" } while y.more
  parallel { call one call two }
  gate human_review { options = { a = b } }
  always { script s { run = x } }
}
"""
    assert names(outline(Document(text))) == [
        [
            "workflow w",
            [
                ["inputs", ["a", "b"]],
                "call plan",
                ["do", ['call "x/y.md"']],
                ["parallel", ["call one", "call two"]],
                "gate human_review",
                ["always", ["script s"]],
            ],
        ]
    ]


def test_every_symbol_encloses_its_name_and_its_children() -> None:
    """As the protocol demands, for a broken text too."""

    def check(symbols: tuple[Symbol, ...], start: int, end: int) -> None:
        for symbol in symbols:
            assert (
                start <= symbol.start <= symbol.name_start <= symbol.name_end <= symbol.end <= end
            )
            check(symbol.children, symbol.start, symbol.end)

    for text in (
        "workflow w { if a.b { call x\n call y { as = \n gate",
        CHILD,
        "call",
        "}{",
        "if a.",
    ):
        check(outline(Document(text)), 0, len(text))


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("workflow w { call a { |retires| = 1 } }", ["retries"]),
        ("workflow w { |cal| a }", ["call"]),
        ("workflow w { gate human_review { on_timeout = |contine| } }", ["continue", "fail"]),
        ('workflow w { gate human_review { on_timeout = "|contine|" } }', ["continue", "fail"]),
        ("workflow w { script s { |rum| = x } }", ["run"]),
        ("workflow w { call plan if |plam|.ok { call x } }", ["plan"]),
        ("workflow w { inputs { dry boolean } if |dri| { call x } }", ["dry"]),
        (
            "workflow w { call plan gate quality_gate { source = |plam| threshold = 1 } }",
            ["plan"],
        ),
        ('workflow w { inputs { ticket } script s { run = "{{ |tiket| }}" } }', ["ticket"]),
        (
            'workflow w { call workflow child { inputs { who = a |lout| = "true" } } }',
            ["loud"],
        ),
    ],
    ids=short,
)
def test_a_suggestion_can_be_taken_over(text: str, fixed: list[str]) -> None:
    """The word between the marks is what the first fix replaces; for choices, all are offered."""
    before, word, _ = text.split("|")
    document = Document(text.replace("|", ""), "w.wf")

    found = company(document, CHILD).diagnose("w.wf")
    offered = [fix for diagnostic in found for fix in fixes(diagnostic, document)]

    assert [fix.text for fix in offered] == fixed
    assert [document.text[fix.start : fix.end] for fix in offered] == [word] * len(fixed)
    assert {fix.start for fix in offered} == {len(before)}
    assert [fix.is_preferred for fix in offered] == [True] + [False] * (len(fixed) - 1)


def test_what_was_meant_is_read_as_it_is_written() -> None:
    """The one wording of `diagnostics.did_you_mean`, on which quick fixes rely."""
    (found,) = read("workflow w { call a { retires = 1 } }").diagnostics

    assert found.hint == did_you_mean("retires", ["retries"])
    assert suggestion(found) == "retries"


def test_problems_without_a_suggestion_have_no_fix() -> None:
    """Whatever the code."""
    document = Document("workflow w { call a { zzzzz = 1 } gate human_review { timeout = 2d } ; ]")

    assert [fix for each in document.parsed.diagnostics for fix in fixes(each, document)] == []


def test_layout_keeps_crlf_and_leaves_broken_texts_alone() -> None:
    """Only where every line ends so; a string over two lines says the same."""
    text = 'workflow w {\r\n\r\n\r\ncall a { as = "x\r\ny" }\r\n}\r\n'
    laid_out = lay_out(Document(text))

    assert laid_out is not None
    assert laid_out.count("\r\n") == laid_out.count("\n")
    assert read(laid_out).definition == read(text).definition
    assert lay_out(Document("workflow w {\r\n}\n")) == "workflow w {}\n"
    assert lay_out(Document("workflow w {")) is None
