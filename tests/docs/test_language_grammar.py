"""The documented grammar is that of the parser: the same words, and what it makes is accepted."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.dsl import ast as tree
from runkon_server.dsl import tokens
from runkon_server.dsl.codes import Group as Reason
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.parser import parse
from runkon_server.dsl.problems import Problems
from runkon_server.dsl.source import Source
from support.wf_examples import blocks
from support.wf_grammar import Group, Maker, Name, Prose, Word, read_grammar, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.wf_grammar import Expression

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/language/grammar.md"
TEXT: Final = next(block.text for block in blocks(PAGE) if block.language == "ebnf")
GRAMMAR: Final = read_grammar(TEXT)
SIGNS: Final = set("{}[],=.")
ENUMS: Final = (
    tree.Trigger, tree.Policy, tree.ApprovalMode, tree.OnCycle, tree.OnChildFail,
)  # fmt: skip
PRODUCTION_OF: Final = {
    "meta": "meta",
    "call": "call",
    "call workflow": "call_workflow",
    "parallel": "parallel",
    "parallel call": "branch",
    "workflow": "workflow",
    "always": "always",
    "if": "if",
    "unless": "unless",
    "while": "while",
    "do … while": "do_while",
    "do": "do",
    "script": "script",
    "foreach": "foreach",
    "gate": "own_gate",
    "gate human_approval": "human_gate",
    "gate human_review": "human_gate",
    "gate pr_approval": "pr_approval",
    "gate pr_checks": "pr_checks",
    "gate quality_gate": "quality_gate",
}
"""Construct of the parser's table -> production."""
BORDERS: Final = {"node", "branch", "meta", "inputs", "map"}
"""Productions whose options belong to something else."""
IDENTS: Final = ("plan", "x-1", "_y", "call-me", "not-a-keyword", "true", "else")
TEXTS: Final = 400
BATCH: Final = 50
GAPS: Final = (" ", " ", "\n", "  // so\n")
STRINGS: Final = ('"two words"', '""', r'"a \"b\" \\ \n"', '"// no comment"', '"{{name}} é"')


def one_of(*words: str) -> Callable[[random.Random], str]:
    return lambda chance: chance.choice(words)


MAKERS: Final = {
    "IDENT": one_of(*IDENTS),
    "INT": one_of("0", "7", "007", "4294967295"),
    "STRING": one_of(*STRINGS),
    "INPUT_NAME": one_of("a", "ticket-id", "gate", "if", "workflow"),
    "GATE_TYPE": one_of("deploy_window", "script", "budget"),
    "NAME_TEXT": one_of("reviews", '"go-live"', "7", "gate", '"2nd"'),
    "MARKER_TEXT": one_of("plan.done", '"foreach:x.done"', '"a.b.c"'),
    "STEP_FIELD": one_of("scan.findings", '"a.b.c"'),
    "AGENT_STRING": one_of('"ops/scan.md"', '"plan.md"', '"a..b/c"', '"plan"'),
    "WHOLE": one_of("0", "1", '"+3"', "4294967295"),
    "POSITIVE": one_of("1", "2", '"12"'),
    "RETRIES": one_of("0", "20", '"3"'),
    "ITERATIONS": one_of("1", "1000"),
    "WIDTH": one_of("1", "256"),
    "PERCENT": one_of("0", "100", '"80"'),
    "RETRY_DELAY": one_of("5", '"250ms"', '"5m"'),
    "TIMEOUT": one_of("90", '"24h"', '"1500ms"', '" +5m "'),
    "SCRIPT_TIMEOUT": one_of("90", '"24h"', '"2000ms"'),
    "GATE_TIMEOUT": one_of("0", '"2160h"', '"90m"'),
}


def words_of(expression: Expression) -> Iterator[str]:
    return (each.text for each in walk(expression) if isinstance(each, Word))


def keys_of(name: str, seen: set[str]) -> Iterator[str]:
    """The words in front of a `=` in a production, and in those that it is made of."""
    if name in seen:
        return
    seen.add(name)
    for each in walk(GRAMMAR[name]):
        if isinstance(each, Name) and each.of not in BORDERS:
            yield from keys_of(each.of, seen)
        if isinstance(each, Group) and each.kind == "sequence":
            for left, right in zip(each.parts, each.parts[1:], strict=False):
                if isinstance(left, Word) and Word("=") in walk(right) and left.text not in SIGNS:
                    yield left.text


def test_every_word_of_the_grammar_is_one_of_the_parser_and_the_other_way_round() -> None:
    """Keywords, options, types of gates, and the words that some options choose from."""
    choices = {str(word) for enum in ENUMS for word in enum} | {"true", "false"}
    gates = {construct.removeprefix("gate ") for construct in KEYS if construct.startswith("gate ")}
    options = {key for keys in KEYS.values() for key in keys}
    known = tokens.KEYWORDS | options | choices | gates
    used = {word for each in GRAMMAR.values() for word in words_of(each)}

    assert used - SIGNS == known
    assert used >= SIGNS


def test_the_grammar_has_a_production_for_every_construct_of_the_parser() -> None:
    assert PRODUCTION_OF.keys() == KEYS.keys()


@pytest.mark.parametrize("construct", KEYS)
def test_a_construct_has_the_options_of_the_parser(construct: str) -> None:
    """What stands in front of `=` in its production, but not inside of steps in it."""
    assert set(keys_of(PRODUCTION_OF[construct], set())) == KEYS[construct].keys()


@pytest.mark.parametrize(
    ("production", "kinds"),
    [("NAME", tokens.NAME_KINDS), ("KEY", tokens.KEY_KINDS), ("ACTION", tokens.AGENT_KINDS)],
)
def test_keywords_are_names_where_the_parser_says_so(
    production: str, kinds: frozenset[str]
) -> None:
    words = set(words_of(GRAMMAR[production]))
    for each in walk(GRAMMAR[production]):
        if isinstance(each, Name) and each.of == "keyword":
            words |= set(words_of(GRAMMAR["keyword"]))

    assert words == kinds - {tokens.IDENT, tokens.STRING}


def test_the_modifiers_of_inputs_are_those_of_the_parser() -> None:
    words = {*words_of(GRAMMAR["input"]), *words_of(GRAMMAR["modifier"])} - SIGNS

    assert words == tokens.INPUT_MODIFIERS


def test_what_is_only_described_has_a_maker() -> None:
    """And nothing else has: all other productions are made as the grammar says."""
    described = {name for name, each in GRAMMAR.items() if isinstance(each, Prose)}

    assert MAKERS.keys() == described


@pytest.mark.parametrize(
    ("production", "kind"),
    [("IDENT", tokens.IDENT), ("INT", tokens.INT), ("STRING", tokens.STRING)],
)
def test_a_pattern_of_the_grammar_is_one_token(production: str, kind: str) -> None:
    """The pattern matches each sample whole, and the lexer sees one token of that kind."""
    prose = GRAMMAR[production]
    assert isinstance(prose, Prose)
    pattern = prose.text.split("/")[1]
    samples = {MAKERS[production](random.Random(seed)) for seed in range(20)}
    for sample in samples:
        source = Source(sample, "sample")
        found = tokenise(source, Problems(source))

        assert re.fullmatch(pattern, sample)
        assert found.kinds == [kind, tokens.EOF]


@pytest.mark.parametrize("first", range(0, TEXTS, BATCH))
def test_what_the_grammar_makes_is_accepted(first: int) -> None:
    """No error of syntax and none of a limit; words lie on lines at random, among comments."""
    for seed in range(first, first + BATCH):
        chance = random.Random(seed)
        made = maker(chance).make("workflow")
        text = "".join(word + chance.choice(GAPS) for word in made)
        read = parse(text, f"seed-{seed}.wf")
        refused = [
            each.render(read.source)
            for each in read.diagnostics
            if each.severity is Severity.ERROR and each.group is not Reason.SEMANTIC
        ]

        assert refused == [], text


def test_the_made_texts_use_every_production() -> None:
    """What they never contain would not be tested above."""
    unused = set(GRAMMAR) - {"workflow"}
    for seed in range(TEXTS):
        made = maker(random.Random(seed))
        made.make("workflow")
        unused -= made.used

    assert unused == set()


def maker(chance: random.Random) -> Maker:
    return Maker(GRAMMAR, chance, MAKERS, recursive="node", depth=4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = b ;", "nobody defines"),
        ("a = ( 1x ;", r"\) is missing"),
        ("a = [ a ) ;", r"\] is missing"),
        ("a = ! ;", "cannot read"),
        ('a = "x"', "; is missing"),
        ("a = a ; a = a ;", "a is defined twice"),
    ],
)
def test_a_grammar_that_cannot_be_read_is_refused(text: str, complaint: str) -> None:
    """The reader above can fail."""
    with pytest.raises(ValueError, match=complaint):
        read_grammar(text)
