"""The inputs of a fuzz run: number `index` of seed `seed` is always the same text.

Most are a few hundred bytes, because small texts find what is wrong; every fiftieth is blown up
to 64 KiB or more, because only large ones find what is slow.
"""

from __future__ import annotations

import ast
import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz._grammar import Grammar
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

ROOT: Final = Path(__file__).resolve().parents[2]
LARGE: Final = 64 * 1024
HUGE: Final = 10 * 1024 * 1024
LARGE_EVERY: Final = 50
HUGE_EVERY: Final = 20_000
SMALL_MAX: Final = 4_000

WORDS: Final = (
    *sorted(KEYWORDS), *sorted({key for keys in KEYS.values() for key in keys}),
    "{", "}", "[", "]", ",", "=", ".", "x", "y.m", "a", '"s"', '"a/b.md"', "3", "007", "\n",
    "human_review", "quality_gate", "// c\n", ";", "#", "é", "'q'", '"', "\\", "else", "-1", "/*",
    "*/", "“q”", "cal", "retires", "4294967296", '"2d"', "not", "==", "\t", "\r\n", "\u2028",
)  # fmt: skip
STRAY: Final = "\x00\t\n\r\"/\\é\u2028\ufeff\ud800\U0001f600{}[],=.#;'-_0aA\x1b\x7f"
UNITS: Final = (
    "{", "}", "{}", "[", "]", "if a.b {", "do {", "do{}", "parallel {", "parallel{call x}", "a=b ",
    "call x { with = [", "a = {", "call x{a=b}", "gate g{}", "meta{}", "inputs{a}", "call x,", '"',
    '"\\', "\\q", "'", "#\n", "//\n", "/", "-1 ", "é ", "1 ", "a.", "a ", "while a.b{", "x = y ",
    "script s{rum=1}", "call 3x ", "if a.b call x } ", "do = = ", "paralel{} ", "{{q}}", "\n}",
    'script s{run="{{a}}{{b}}"}', "if s.m{}", "if s{}", "call workflow c{inputs{a=b}} ", "= ", "\n",
    "a required ",
)  # fmt: skip
HEADS: Final = ("", "workflow w { ", "workflow w { inputs { ", "workflow w { call x { with = [",
                'workflow w { script s { run = "', "workflow w { } ")  # fmt: skip


@cache
def corpus() -> tuple[str, ...]:
    """The examples, and every text of the language that stands in its unit tests."""
    files = [*ROOT.glob("examples/**/*.wf"), *ROOT.glob("tests/unit/dsl/golden/*.[ws]*")]
    texts = {path.read_text(encoding="utf-8") for path in files}
    for path in ROOT.glob("tests/unit/dsl/*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if "{" in text and "}" in text and len(text) < SMALL_MAX:
                    texts.add(text if text.startswith("workflow") else f"workflow w {{ {text} }}")
    return tuple(sorted(texts))


def make(seed: int, index: int) -> str:
    """The text of one number."""
    chance = random.Random(f"{seed}:{index}")
    if index % HUGE_EVERY == HUGE_EVERY - 1:
        return _blown_up(chance, HUGE)
    if index % LARGE_EVERY == LARGE_EVERY - 1:
        return _blown_up(chance, chance.choice((LARGE, LARGE, LARGE, 2 * LARGE, 4 * LARGE)))
    return _small(chance)


def _small(chance: Random) -> str:
    kind = chance.random()
    if kind < 0.1:
        return Grammar(chance).text()
    if kind < 0.2:
        soup = " ".join(chance.choices(WORDS, k=chance.randrange(60)))
        return soup if chance.random() < 0.2 else f"workflow w {{ {soup} }}"
    text = chance.choice(corpus()) if kind < 0.6 else Grammar(chance).text()
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        text = chance.choice(MUTATIONS)(text[:SMALL_MAX], chance)
    return text


def _blown_up(chance: Random, size: int) -> str:
    """Few things very often: a unit, a soup, a mutated text, up to a size."""
    kind = chance.random()
    if kind < 0.5:
        unit = "".join(chance.choices(UNITS, k=chance.choice((1, 1, 2, 3))))
    elif kind < 0.6:
        unit = "".join(chr(chance.randrange(1, 0x250)) for _ in range(200))
    elif kind < 0.8:
        unit = f"{' '.join(chance.choices(WORDS, k=chance.randrange(1, 400)))} "
    else:
        text = _small(chance)
        unit = text[text.find("{") + 1 :].rpartition("}")[0] + "\n"
    head = chance.choice(HEADS)
    if chance.random() < 0.5:  # each one different, where there is a name to differ
        head += unit.join(chance.choices(("a", "b7", "x-y", '"z"', "", " "), k=50))
    text = head + (unit or "x") * (size // max(1, len(unit)))
    return text[:size] + chance.choice(("", " }", " } }", '"', "]}}"))


# Mutations


def _cut_bytes(text: str, chance: Random) -> str:
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(chance.choice((1, 1, 4))):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return data.decode("utf-8", chance.choice(("replace", "surrogateescape")))


def _cut(text: str, chance: Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + chance.choice((1, 1, 2, 9, 80)) :]


def _stray(text: str, chance: Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(STRAY) + text[at:]


def _word(text: str, chance: Random) -> str:
    at = chance.randrange(len(text) + 1)
    return f"{text[:at]} {chance.choice(WORDS)} {text[at:]}"


def _change_word(text: str, chance: Random) -> str:
    words = text.split(" ")
    at = chance.randrange(len(words))
    words[at] = chance.choice(("", chance.choice(WORDS), words[at][:-1], words[at][::-1]))
    return " ".join(words)


def _change_line(text: str, chance: Random) -> str:
    lines = text.split("\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            lines[at] = lines[at].strip()[: chance.randrange(40)]
    return "\n".join(lines)


def _move_block(text: str, chance: Random) -> str:
    """Copy what lies between two braces to another brace, or take it away."""
    braces = [at for at, char in enumerate(text) if char in "{}"]
    if len(braces) < 3:
        return text
    first, last = sorted(chance.sample(braces, 2))
    block, to = text[first : last + 1], chance.choice(braces)
    if chance.random() < 0.3:
        return text[:first] + text[last + 1 :]
    return text[:to] + block + text[to:]


def _splice(text: str, chance: Random) -> str:
    other = chance.choice(corpus())
    return text[: chance.randrange(len(text) + 1)] + other[chance.randrange(len(other)) :]


MUTATIONS: Final[tuple[Callable[[str, Random], str], ...]] = (
    _cut_bytes, _cut, _cut, _stray, _word, _word, _change_word, _change_line, _move_block, _splice,
)  # fmt: skip
