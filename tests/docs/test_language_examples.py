"""The documents' examples are read as they are meant: their blocks, their cues, their outcomes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from support.wf_examples import Deed, Vote, blocks, cues_of, outcome_of

LANGUAGE: Final = Path(__file__).resolve().parents[2] / "docs/language"
COMMENT: Final = re.compile(
    r'^(?P<code>(?:[^"/]|"[^"]*"|/(?!/))*)// *(?P<remark>.*)$', re.MULTILINE
)
ORDINARY: Final = {
    "What a reader should know before the first step.",
    "what only this step needs",
    "The steps below belong together.",
}
"""Comments of examples that are only comments."""

PAGE: Final = """\
# A page

```wf run dry
workflow w {
  call a
}
```

Outcome: **failed**. Steps: `a`, `b.md` failed, `c` timed out,
`d` skipped. Error: “no `a` today”.

```text file=x.txt
Outcome: **never**.
```
"""


def test_blocks_have_their_words_and_the_paragraph_behind(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    first, second = blocks(path)

    assert (first.language, first.words, first.line) == ("wf", ("run", "dry"), 3)
    assert first.text == "workflow w {\n  call a\n}\n"
    assert first.after.startswith("Outcome: **failed**.")
    assert (second.file, second.after) == ("x.txt", "")


def test_an_outcome_has_status_rows_and_error(tmp_path: Path) -> None:
    """Rows are completed unless the page says otherwise; a name may have a dot."""
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    first, second = map(outcome_of, blocks(path))

    assert second is None
    assert first is not None
    assert first.status == "failed"
    assert first.error == "no `a` today"
    assert first.steps == (
        ("a", "completed"), ("b.md", "failed"), ("c", "timed_out"), ("d", "skipped"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("remark", "deeds"),
    [
        ("reports failing", (Deed(markers=("failing",)),)),
        ("reports a and b, then nothing", (Deed(markers=("a", "b")), Deed())),
        ("fails, then fails for good", (Deed(verb="fails"), Deed(verb="fails for good"))),
        ("fails, then works", (Deed(verb="fails"), Deed())),
        ("fails, then reports flaky", (Deed(verb="fails"), Deed(markers=("flaky",)))),
        ('reports {"a": 1}', (Deed(output={"a": 1}),)),
        ('says "tests first"', (Deed(context="tests first"),)),
        ("hangs", (Deed(verb="hangs"),)),
        ("sam cancels the run", (Deed(verb="cancels"),)),
    ],
)
def test_a_remark_behind_a_call_is_what_its_worker_does(
    remark: str, deeds: tuple[Deed, ...]
) -> None:
    assert cues_of(f"  call plan {{ retries = 1 }}  // {remark}").deeds == {"plan": deeds}
    assert cues_of(f'  call "a/plan.md"  // {remark}').deeds == {"a/plan.md": deeds}


def test_a_remark_behind_a_gate_is_what_people_say() -> None:
    """Under the name of the gate, wherever that stands in it."""
    text = """
  gate human_review { name = first }  // ann approves, then bob rejects with "not now"
  gate human_review {  // ann selects squash
    name = second
  }
  gate human_approval {}  // nobody answers
  gate pr_checks {}  // checks pass
"""
    votes = cues_of(text).votes

    assert votes == {
        "first": (
            Vote(who="ann", approves=True),
            Vote(who="bob", approves=False, words="not now"),
        ),
        "second": (Vote(who="ann", approves=True, selection="squash"),),
        "human_approval": (),
        "pr_checks": (Vote(who="", approves=True, forge="green"),),
    }


def test_remarks_behind_inputs_and_loops_over_items() -> None:
    text = """
    name required description = "who"  // given "Ada"
  foreach each {  // finds A-1 and B-2
    over = tickets
  }
"""
    cues = cues_of(text)

    assert cues.inputs == {"name": "Ada"}
    assert cues.items == {"tickets": ("A-1", "B-2")}


@pytest.mark.parametrize(
    "text", ["  gate g {}  // ann hesitates", "  call a  // fails\n  call a  // works"]
)
def test_what_nobody_could_act_on_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nobody knows|two remarks"):
        cues_of(text)


def test_every_remark_of_the_reference_is_understood() -> None:
    """A slip in one would else be an ordinary comment, and its example play another piece."""
    unread = []
    for path in sorted(LANGUAGE.glob("*.md")):
        for block in blocks(path):
            for found in COMMENT.finditer(block.text) if block.language == "wf" else ():
                cues = cues_of(found[0])
                if found["remark"] not in ORDINARY and not any(
                    (cues.deeds, cues.votes, cues.inputs, cues.items, "foreach" in found["code"])
                ):
                    unread.append(f"{path.name}:{block.line}: {found['remark']}")

    assert unread == []
