"""The workflows of a folder are judged as one set, whatever state each is in."""

from __future__ import annotations

from runkon_server.dsl.editing.collection import Collection
from runkon_server.dsl.editing.document import Document

CALLER = "workflow a { call workflow b }"


def collection(*texts: str) -> Collection:
    """The first text is `0/a.wf`, and so on."""
    made = Collection()
    for number, text in enumerate(texts):
        put(made, number, text)
    return made


def put(into: Collection, number: int, text: str) -> None:
    name = text.split()[1] if len(text.split()) > 1 else "x"
    document = Document(text, f"{number}/{name}.wf")
    into.put(document.label, document)


def codes(of: Collection, key: str, *, is_complete: bool = True) -> list[str]:
    return [each.code for each in of.diagnose(key, is_complete=is_complete) if each.code < "WF601"]


def test_a_missing_workflow_is_an_error_only_where_all_are_known() -> None:
    """Outside of a folder nobody can tell."""
    alone = collection(CALLER)

    assert codes(alone, "0/a.wf") == ["WF508"]
    assert codes(alone, "0/a.wf", is_complete=False) == []


def test_a_workflow_that_is_being_edited_is_not_missing() -> None:
    """Its own errors are told where they are, not at its callers."""
    both = collection(CALLER, "workflow b { call x {")

    assert codes(both, "0/a.wf") == []
    assert codes(both, "1/b.wf") == ["WF203"]


def test_circles_and_missing_inputs_come_and_go_with_the_other_text() -> None:
    """The same document, judged in changing company."""
    both = collection(CALLER, "workflow b { call x }")
    assert codes(both, "0/a.wf") == []

    put(both, 1, "workflow b { inputs { who required } call x }")
    assert codes(both, "0/a.wf") == ["WF509"]

    put(both, 1, "workflow b { call workflow a }")
    assert codes(both, "0/a.wf") == ["WF520"]

    both.remove("1/b.wf")
    assert codes(both, "0/a.wf") == ["WF508"]


def test_of_two_files_with_one_name_the_first_holds_it() -> None:
    """The other is told so; definitions lead to the first."""
    twins = collection("workflow b { call x }", "workflow b { call y }")

    held = twins.holder("b")

    assert held is not None
    assert held[0] == "0/b.wf"
    assert codes(twins, "0/b.wf") == []
    assert codes(twins, "1/b.wf") == ["WF559"]


def test_those_concerned_are_callers_of_callers_and_namesakes() -> None:
    """Directly or not, in a circle too; those that only are called are not."""
    four = collection(
        CALLER,
        "workflow b { call workflow c call workflow a }",
        "workflow c { call workflow d }",
        "workflow d { call x }",
        "workflow e { foreach f { workflow = b } }",
    )

    assert four.concerned(["c"]) == ("0/a.wf", "1/b.wf", "2/c.wf", "4/e.wf")
    assert four.concerned(["e"]) == ("4/e.wf",)
    assert four.concerned(["nobody"]) == ()


def test_actions_on_offer_are_those_of_all_texts_but_the_word_being_typed() -> None:
    """Quoted ones are paths, and no names."""
    text = 'workflow a { call plan call pla call "x/y.md" }'
    two = collection(text, "workflow b { call ship }")
    typed = two.get("0/a.wf")
    assert typed is not None

    found = two.agents(besides=(typed, text.index("pla call") + 3))

    assert found == ("plan", "ship")
