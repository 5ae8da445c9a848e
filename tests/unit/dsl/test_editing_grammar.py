"""The TextMate grammar of docs/editors colours what the language says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.problems import Problems
from runkon_server.dsl.source import Source
from runkon_server.dsl.tokens import KEYWORDS, STRING
from support.textmate import Grammar
from support.workflows import short

ROOT: Final = Path(__file__).resolve().parents[3]
FILE: Final = ROOT / "docs/editors/runkon.tmLanguage.json"
GRAMMAR: Final = Grammar(json.loads(FILE.read_text(encoding="utf-8")))
ENGINE: Final = Path(__file__).parents[2] / "support/textmate.mjs"
MODULES: Final = os.environ.get("RUNKON_TEXTMATE_MODULES", "")
REAL: Final = [
    path.read_text(encoding="utf-8")
    for path in sorted(
        [*ROOT.glob("examples/workflows/*.wf"), *ROOT.glob("tests/unit/dsl/golden/*.wf")]
    )
]
SAMPLES: Final = {
    "workflow a-b {": ["workflow=storage.type.workflow", "a-b=entity.name.type.workflow"],
    "call plan": ["call=keyword.control.call", "plan=entity.name.function.action"],
    "call workflow child": [
        "call=keyword.control.call",
        "workflow=storage.type.workflow",
        "child=entity.name.type.workflow",
    ],
    'call "a/b.md" { }': ["call=keyword.control.call", "a/b.md=string.quoted.double"],
    "call-me": [],
    "retries = 2": [
        "retries=support.type.property-name",
        "==keyword.operator.assignment",
        "2=constant.numeric.integer",
    ],
    "colour = red": ["colour=entity.other.attribute-name", "red=string.unquoted"],
    "as = script": ["as=support.type.property-name", "script=string.unquoted"],
    "if = plan.ok": [
        "if=support.type.property-name",
        "plan=variable.other.step",
        ".=punctuation.accessor",
        "ok=variable.other.marker",
    ],
    "if plan.ok {": [
        "if=keyword.control.conditional",
        "plan=variable.other.step",
        "ok=variable.other.marker",
    ],
    "unless dry {": ["unless=keyword.control.conditional", "dry=variable.other.step"],
    "} while review.open": [
        "}=punctuation.section.block.end",
        "while=keyword.control.loop",
        "open=variable.other.marker",
    ],
    "do {": ["do=keyword.control.loop", "{=punctuation.section.block.begin"],
    "gate human_review {": ["gate=keyword.control.gate", "human_review=support.class.gate"],
    "script build { run": ["script=keyword.control.step", "build=entity.name.function.step"],
    "fail_fast = false": ["false=constant.language.boolean"],
    "on_fail = continue": ["continue=constant.language"],
    "on_fail = continue-later": ["continue-later=string.unquoted"],
    'timeout = "90s"': ["90s=constant.numeric.duration", '"=punctuation.definition.string.end'],
    'as = "90 s"': ["90 s=string.quoted.double"],
    "ticket required default = x": [
        "required=storage.modifier",
        "default=entity.other.attribute-name",
    ],
    "loud boolean": ["boolean=storage.type.boolean"],
    "inputs {": ["inputs=keyword.other.block"],
    "// call x": ["// call x=comment.line.double-slash"],
    'as = "a // b"': ["a // b=string.quoted.double"],
    r'as = "a\n\q\""': [
        r"\n=constant.character.escape",
        r"\q=constant.character.escape.unknown",
        r"\"=constant.character.escape",
    ],
    'run = "echo {{ who }} {{x y}}"': [
        "{{=punctuation.section.interpolation.begin",
        "who=variable.other.placeholder",
        " {{x y}}=string.quoted.double",
    ],
    'prompt = "one\n  call {{two}}\n" as = x': [
        "one=string.quoted.double",
        "  call =string.quoted.double",
        "two=variable.other.placeholder",
        "as=support.type.property-name",
    ],
    "targets = [repo, 3]": [
        "[=punctuation.section.brackets.begin",
        ",=punctuation.separator",
        "3=constant.numeric.integer",
        "]=punctuation.section.brackets.end",
    ],
    "call x;": [";=invalid.illegal.character"],
}
"""Text → some of its tokens, each with its innermost scope, in this order."""


@pytest.mark.parametrize(("text", "expected"), SAMPLES.items(), ids=short)
def test_words_have_the_scopes_they_deserve(text: str, expected: list[str]) -> None:
    """Each token of the sample is there, with that scope innermost."""
    tokens = [
        f"{token.text}={token.scopes[-1].removesuffix('.runkon')}"
        for token in GRAMMAR.tokens(text)
        if token.scopes
    ]

    assert [each for each in tokens if each in expected] == expected
    assert expected or not tokens


def test_scopes_are_of_this_language_and_of_the_usual_families() -> None:
    """Themes colour by the first part of a scope; the last names the language."""
    scopes = set(re.findall(r'"name": "([^"]+)"', FILE.read_text(encoding="utf-8")))
    families = {
        "comment", "constant", "entity", "invalid", "keyword", "meta", "punctuation", "storage",
        "string", "support", "variable",
    }  # fmt: skip

    own = {scope for scope in scopes if scope.endswith(".runkon")}

    assert scopes - own == {"Runkon workflow"}
    assert {scope.partition(".")[0] for scope in own} <= families


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_every_keyword_is_coloured(keyword: str) -> None:
    """Standing alone."""
    (token,) = GRAMMAR.tokens(keyword)

    assert token.scopes[0].startswith(("keyword.", "storage."))


@pytest.mark.parametrize("key", sorted({key for keys in KEYS.values() for key in keys}))
def test_every_option_is_known(key: str) -> None:
    """Left of `=`, with or without a blank; other keys are coloured differently."""
    for text in (f"{key} = x", f"{key}=x"):
        assert GRAMMAR.tokens(text)[0] == (key, ("support.type.property-name.runkon",))
    assert GRAMMAR.tokens(f"{key}x = 1")[0].scopes == ("entity.other.attribute-name.runkon",)


@pytest.mark.parametrize("text", REAL, ids=short)
def test_strings_and_comments_are_those_of_the_lexer(text: str) -> None:
    """In real workflows, nothing is illegal, and quotes never go astray."""
    source = Source(text, "w.wf")
    read = tokenise(source, Problems(source))
    strings = "".join(
        words for kind, words in zip(read.kinds, read.texts, strict=True) if kind == STRING
    )
    comments = "".join(comment.text for comment in read.comments)

    tokens = GRAMMAR.tokens(text)

    in_strings = [
        token.text for token in tokens if token.scopes[:1] == ("string.quoted.double.runkon",)
    ]
    assert "".join(in_strings) == strings.replace("\n", "")
    found = [
        token.text for token in tokens if token.scopes[:1] == ("comment.line.double-slash.runkon",)
    ]
    assert "".join(found) == comments
    assert [token for token in tokens if "invalid.illegal.character.runkon" in token.scopes] == []


def test_expressions_mean_the_same_to_every_engine() -> None:
    r"""No possessive or named groups, no `\h` or `\w`: Oniguruma reads them otherwise."""
    expressions = list(GRAMMAR.expressions())

    assert len(expressions) > 20
    for expression in expressions:
        re.compile(expression)
        assert re.search(r"\\[hHKRXwWdDbB]|\(\?P|\+\+|\*\+|\[:", expression) is None


@pytest.mark.skipif(
    not MODULES or shutil.which("node") is None,
    reason="needs node, and RUNKON_TEXTMATE_MODULES: a node_modules folder with"
    " vscode-textmate and vscode-oniguruma",
)
def test_the_engine_of_vs_code_says_the_same() -> None:
    """All samples and real workflows, compared token by token with `support.textmate`."""
    texts = [*SAMPLES, *REAL]

    answer = subprocess.run(
        ["node", str(ENGINE), MODULES, str(FILE)],
        input=json.dumps(texts).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )

    for text, tokens in zip(texts, json.loads(answer.stdout), strict=True):
        assert [(words, tuple(scopes)) for words, scopes in tokens] == GRAMMAR.tokens(text), text
