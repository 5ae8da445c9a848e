"""Workflow texts in the documents, with what stands beside them: who does what, how it ends.

A fenced block starts with three backticks, its language and words of ours: `wf run` is played on a
server, `wf file=child.wf` gives a block a name. Comments in a text say what the world does:

* behind `call`: `// reports failing and slow, then nothing`, `// fails, then works`,
  `// reports {"confidence": 80}`, `// says "two findings"`, `// hangs`, `// fails for good`,
  `// sam cancels the run`;
* behind `gate`: `// ann approves, then bob approves`, `// ann rejects with "not now"`,
  `// ann selects squash`, `// nobody answers`; on the forge `// two approvals`, `// checks pass`;
* behind `foreach`: `// finds A-1 and B-2`, the items of its provider;
* behind an input: `// given "A-1"`.

A paragraph below the block says how the run ends: `Outcome: **completed**. Steps: ...`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OPENING: Final = re.compile(r"^```(\w+) *(.*)$")
_CLOSING: Final = "```"
_OUTCOME: Final = re.compile(
    r"Outcome: \*\*(?P<status>\w+)\*\*\."
    r"(?: Steps: (?P<steps>(?:`[^`]*`|[^`.])+)\.(?= |$))?"
    r"(?: Error: “(?P<error>[^”]*)”\.)?"
)
_STEP: Final = re.compile(r"`([^`]+)`(?: (failed|skipped|timed out))?")
_REMARK: Final = re.compile(
    r'^ *(?:[^"/]|"[^"]*")*?\b(?P<word>call|gate|foreach) +'
    r'(?:"(?P<quoted>[^"]*)"|(?P<name>[\w-]+))(?P<rest>.*?)//[ ]*(?P<remark>.*)$'
)
_GIVEN: Final = re.compile(r'^ *(?P<name>[\w-]+)\b.*//[ ]*given "(?P<value>[^"]*)"$')
_NAME: Final = re.compile(r'\bname = "?([\w-]+)')
_OVER: Final = re.compile(r'\bover = "?([\w-]+)')
_FINDS: Final = "finds "
_DEED: Final = re.compile(
    r"(?:\w+ (?=cancels))?(?P<verb>reports|fails for good|fails|works|hangs|says|cancels)"
    r"(?: (?P<what>.+))?"
)
_FORGE: Final = {"two approvals": "approved", "checks pass": "green"}
_VOTE: Final = re.compile(
    r"(?P<who>\w+) (?P<verb>approves|rejects|selects)"
    r"(?: (?P<what>[\w-]+))?(?: with \"(?P<words>.*)\")?"
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    words: tuple[str, ...]
    """What stands behind the language."""
    text: str
    line: int
    """Number of its opening line."""
    after: str
    """The paragraph behind it, as one line."""

    @property
    def file(self) -> str | None:
        """The name that `file=` gives."""
        names = [word.removeprefix("file=") for word in self.words if word.startswith("file=")]
        return names[0] if names else None


class Outcome(NamedTuple):
    """How a page says that a run ends."""

    status: str
    steps: tuple[tuple[str, str], ...]
    """Name and status of each row, in order; empty if the page does not say."""
    error: str
    """Part of the run's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What a worker makes of one attempt."""

    markers: tuple[str, ...] = ()
    output: object = None
    context: str = ""
    verb: str = "reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What a person says at a gate."""

    who: str
    approves: bool
    selection: str = ""
    words: str = ""
    forge: str = ""
    """How the pull request stands, if it is the forge that speaks: `approved` or `green`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cues:
    """Who does what while a workflow runs."""

    deeds: dict[str, tuple[Deed, ...]]
    """By action; the last one goes on for ever."""
    votes: dict[str, tuple[Vote, ...]]
    """By the gate's name."""
    items: dict[str, tuple[str, ...]]
    """By provider."""
    inputs: dict[str, str]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, from its top to its end."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opening = _OPENING.match(lines[at])
        if opening is None:
            at += 1
            continue
        end = lines.index(_CLOSING, at)
        text = "\n".join(lines[at + 1 : end]) + "\n"
        yield Block(opening[1], tuple(opening[2].split()), text, at + 1, _paragraph(lines, end + 1))
        at = end + 1


def _paragraph(lines: list[str], start: int) -> str:
    while start < len(lines) and not lines[start].strip():
        start += 1
    end = start
    while end < len(lines) and lines[end].strip() and not lines[end].startswith(("#", _CLOSING)):
        end += 1
    return " ".join(line.strip() for line in lines[start:end])


def outcome_of(block: Block) -> Outcome | None:
    """How the page says that the block's run ends; None if it does not say."""
    return outcome_in(block.after)


def outcome_in(paragraph: str) -> Outcome | None:
    """How a run ends by a paragraph in one line; None if it does not say."""
    found = _OUTCOME.search(paragraph)
    if found is None:
        return None
    steps = tuple(
        (name, (status or "completed").replace(" ", "_"))
        for name, status in _STEP.findall(found["steps"] or "")
    )
    return Outcome(found["status"], steps, found["error"] or "")


def cues_of(text: str) -> Cues:
    """What the comments of a workflow say about the world.

    Raises:
        ValueError: an action has two different remarks.
    """
    cues = Cues(deeds={}, votes={}, items={}, inputs={})
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if given := _GIVEN.match(line):
            cues.inputs[given["name"]] = given["value"]
        if remark := _REMARK.match(line):
            _note(cues, remark, lines[number:])
    return cues


def _note(cues: Cues, remark: re.Match[str], lines: list[str]) -> None:
    name = remark["quoted"] or remark["name"]
    said = remark["remark"].split(", then ")
    if remark["word"] == "gate":
        cues.votes[_found(_NAME, lines) or name] = tuple(_votes(said))
    elif remark["word"] == "foreach":
        provider = _found(_OVER, lines)
        if provider is not None and said[0].startswith(_FINDS):
            cues.items[provider] = tuple(said[0].removeprefix(_FINDS).split(" and "))
    elif _DEED.fullmatch(said[0]):
        if name in cues.deeds:
            raise ValueError(f"two remarks on {name}")
        cues.deeds[name] = tuple(_deed(part) for part in said)


def _deed(said: str) -> Deed:
    found = _DEED.fullmatch(said)
    verb, what = (found["verb"], found["what"] or "") if found else ("reports", said)
    if verb == "says":
        return Deed(context=json.loads(what))
    if verb != "reports" or what == "nothing":
        return Deed(verb=verb if verb != "works" else "reports")
    if what.startswith("{"):
        return Deed(output=json.loads(what))
    return Deed(markers=tuple(what.split(" and ")))


def _found(option: re.Pattern[str], lines: list[str]) -> str | None:
    """The value of an option of the construct that begins in the first line."""
    end = next((at for at, line in enumerate(lines) if "}" in line), 0)
    found = option.search(" ".join(lines[: end + 1]))
    return None if found is None else found[1]


def _votes(said: list[str]) -> Iterator[Vote]:
    for part in said:
        found = _VOTE.fullmatch(part)
        if part in _FORGE:
            yield Vote(who="", approves=True, forge=_FORGE[part])
        elif found is not None:
            yield Vote(
                who=found["who"],
                approves=found["verb"] != "rejects",
                selection=found["what"] or "",
                words=found["words"] or "",
            )
        elif part != "nobody answers":
            raise ValueError(f"nobody knows what this means: {part}")
