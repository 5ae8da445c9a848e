"""`runkon check`: what it finds in files and folders, how it tells it, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from runkon_server.dsl.codes import CODES
from runkon_server.dsl.snapshot import dump
from support.five_mistakes import FILES, Mistaken
from support.wf_files import Answer, runkon, write_files
from support.workflows import accepted

PAGE: Final = Path(__file__).resolve().parents[3] / "docs/reference/check.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test: empty at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


def check(*words: object, text: str | bytes | None = None) -> Answer:
    return runkon("check", *words, text=text)


def places(
    *words: object, text: str | bytes | None = None
) -> dict[str, list[tuple[str, int, int]]]:
    """Code, line and column of every finding, by file."""
    document = json.loads(check(*words, "--format", "json", text=text).out)
    return {
        each["path"]: [(d["code"], d["line"], d["column"]) for d in each["diagnostics"]]
        for each in document["files"]
    }


def codes(*words: object) -> dict[str, str]:
    """The codes of all findings, by file; what the server does not run yet is left out."""
    return {path: " ".join(code for code, _, _ in found) for path, found in places(*words).items()}


def test_files_in_order_end_with_0(folder: Path) -> None:
    write_files(folder, a="call x", b="call y")

    assert check() == (0, "2 files checked, nothing to complain about\n", "")


@pytest.mark.parametrize("file", FILES, ids=[each.name for each in FILES])
def test_five_unrelated_mistakes_are_five_findings(folder: Path, file: Mistaken) -> None:
    """As text and as JSON; what the server does not run yet is counted too."""
    path = folder / f"{file.name}.wf"
    path.write_text(file.written())
    document = json.loads(check(path.name, "--no-scripts", "--format", "json").out)
    found = [each["code"] for each in document["files"][0]["diagnostics"]]
    text = check(path.name, "--no-scripts")

    assert sorted(found) == sorted(file.codes)
    assert re.findall(rf"^{path.name}:\d+:\d+: \w+ (WF\d+)", text.out, re.MULTILINE) == found
    assert text.code == document_code(document)


def document_code(document: dict[str, Any]) -> int:
    """The exit code that belongs to a document."""
    return 0 if all(each["valid"] for each in document["files"]) else 1


def test_a_finding_shows_its_line_with_carets_and_advice(folder: Path) -> None:
    write_files(folder, a="call x { retires = 2 }")

    assert check("a.wf").out == (
        "a.wf:2:10: warning WF301: `call` has no option `retires`\n"
        "    2 | call x { retires = 2 }\n"
        "      |          ^^^^^^^\n"
        "      = did you mean `retries`?\n"
        "\n"
        "1 file checked: 0 errors, 1 warning\n"
    )


def test_colours_are_for_terminals_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And can be switched off there (NO_COLOR); the words are the same."""
    write_files(folder, a="call x { retires = 2 }")
    plain = check("a.wf").out
    coloured = runkon("check", "a.wf", colour=True).out
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[33m" in coloured
    assert "\x1b" not in plain
    assert runkon("check", "a.wf", colour=True).out == plain


def test_warnings_do_not_fail_unless_strict(folder: Path) -> None:
    write_files(folder, a="call x { retires = 2 }")

    assert check("a.wf").code == 0
    strict = check("a.wf", "--strict")
    assert strict.code == 1
    assert "a.wf:2:10: error WF301" in strict.out


def test_a_folder_is_all_its_files_and_those_below(folder: Path) -> None:
    """By the alphabet; not what version control and installed packages keep."""
    write_files(folder, b="call x", a="call x", sub__c="call x", **{".conductor__d": "call x"})
    write_files(folder, **{".git__e": "call x", ".venv__f": "call x", "node_modules__g": "call x"})
    folder.joinpath("a.txt").write_text("no workflow")

    assert list(places()) == ["a.wf", "b.wf", ".conductor/d.wf", "sub/c.wf"]
    assert list(places("sub", "b.wf", ".")) == ["sub/c.wf", "b.wf", "a.wf", ".conductor/d.wf"]


def test_a_folder_without_workflows_is_in_order(folder: Path) -> None:
    assert check() == (0, "", "no workflow files found\n")


def test_circles_depth_and_inputs_are_checked_across_the_files_of_a_folder(folder: Path) -> None:
    chain = {f"c{n}": f"call workflow c{n + 1}" for n in range(6)}
    write_files(
        folder,
        a="call workflow sub\ncall workflow gone",
        sub__sub="inputs { name }\ncall workflow b { inputs { a = 1 } }",
        b="call workflow sub { inputs { name = x } }",
        c6="call x",
        **chain,
    )
    found = codes()

    assert found["a.wf"] == "WF509 WF520 WF508"
    assert found["sub/sub.wf"] == "WF520 WF553"
    assert found["b.wf"] == "WF520"
    assert (found["c0.wf"], found["c1.wf"]) == ("WF521", "")


def test_a_file_alone_may_call_its_neighbours(folder: Path) -> None:
    """They are read, but not checked; what is nowhere may be elsewhere."""
    write_files(
        folder,
        a="call workflow child\ncall workflow gone\ncall workflow bad\ncall workflow other",
        child="inputs { name }",
        bad="call 3x",
    )
    folder.joinpath("other.wf").write_text("workflow another { }")

    assert codes("a.wf") == {"a.wf": "WF509 WF508"}
    assert "cannot be loaded: bad.wf has errors" in check("a.wf").out


def test_standard_input_is_a_file_too(folder: Path) -> None:
    assert places("-", text="workflow any { call x { retires = 1 } }") == {
        "<stdin>": [("WF301", 1, 25)]
    }
    assert check("-", text="workflow any { call x }").code == 0


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", "1:1"),
        (b"\xef\xbb\xbfworkflow w {\r\n  call x {\r\n", "2:11"),
        (b"workflow w { call \xf0\x9f\x98\x80 }", "1:19"),
        (b"{" * 300_000, "1:1"),
    ],
)
def test_whatever_the_text_the_answer_is_a_diagnostic(data: bytes, place: str) -> None:
    answer = check("-", text=data)

    assert answer.code == 1
    assert answer.out.startswith(f"<stdin>:{place}: error WF")


def test_what_cannot_be_read_ends_with_2_and_the_rest_is_checked(folder: Path) -> None:
    write_files(folder, a="call 3x")
    folder.joinpath("latin.wf").write_bytes(b"workflow w { // caf\xe9\n}")
    answer = check("gone.wf", "latin.wf", "a.wf")

    assert answer.code == 2
    assert answer.err == (
        "error: gone.wf: No such file or directory\n"
        "error: latin.wf: is not UTF-8: byte 19 is invalid\n"
    )
    assert "a.wf:2:" in answer.out


@pytest.mark.parametrize(
    "words", [["--format", "xml"], ["--scripts", ".", "--no-scripts"], ["--known", "gone.toml"]]
)
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    assert check(*words).code == 2


def test_the_json_has_everything_that_the_contract_has(folder: Path) -> None:
    """The fields are documented in docs/reference/check.md; more may come, none may go."""
    write_files(folder, a="call x { retires = 2 }", b="call 3x")
    document: dict[str, Any] = json.loads(check("a.wf", "b.wf", "c.wf", "--format", "json").out)

    assert document == {
        "files": [
            {
                "path": "a.wf",
                "workflow": "a",
                "valid": True,
                "diagnostics": [
                    {
                        "code": "WF301",
                        "severity": "warning",
                        "message": "`call` has no option `retires`",
                        "hint": "did you mean `retries`?",
                        "line": 2,
                        "column": 10,
                        "end_line": 2,
                        "end_column": 17,
                        "length": 7,
                        "excerpt": "    2 | call x { retires = 2 }\n      |          ^^^^^^^",
                    }
                ],
            },
            {
                "path": "b.wf",
                "workflow": None,
                "valid": False,
                "diagnostics": [document["files"][1]["diagnostics"][0]],
            },
        ],
        "unreadable": [{"path": "c.wf", "reason": "No such file or directory"}],
    }


def test_json_may_be_asked_for_like_everywhere_else(folder: Path) -> None:
    write_files(folder, a="call x")

    assert runkon("--json", "check", "a.wf").out == check("a.wf", "--format", "json").out


def test_sarif_names_rules_places_and_levels(folder: Path) -> None:
    write_files(folder, **{"a b": "call x { retires = 2 }"})
    log = json.loads(check(".", "--format", "sarif", "--strict").out)
    (run,) = log["runs"]
    (result,) = (each for each in run["results"] if each["ruleId"] == "WF301")
    (place,) = result["locations"]

    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted(
        {each["ruleId"] for each in run["results"]}
    )
    assert run["tool"]["driver"]["rules"][-1]["shortDescription"]["text"] == CODES["WF301"].title
    assert result["level"] == "error"
    assert result["message"]["text"].endswith("(did you mean `retries`?)")
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b.wf"},
        "region": {"startLine": 2, "startColumn": 10, "endLine": 2, "endColumn": 17},
    }


def test_scripts_are_looked_for_below_the_working_directory(folder: Path) -> None:
    """V22 to V24 on a real file system."""
    write_files(
        folder,
        a="\n".join(
            f'script s{n} {{ run = "{run}" }}'
            for n, run in enumerate(["bin/ok -v", "bin/plain", "bin", "bin/", "bin/gone", "out/x"])
        ),
    )
    folder.joinpath("bin").mkdir()
    for name, mode in (("ok", 0o755), ("plain", 0o644)):
        folder.joinpath("bin", name).write_text("#!/bin/sh\n")
        folder.joinpath("bin", name).chmod(mode)
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    outside.joinpath("x").write_text("")
    folder.joinpath("out").symlink_to(outside)
    found = [(code, line) for code, line, _ in places()["a.wf"]]

    assert found == [("WF524", 3), ("WF522", 5), ("WF522", 6), ("WF522", 7)]
    assert codes("--no-scripts") == {"a.wf": ""}


def test_scripts_may_be_looked_for_elsewhere(folder: Path) -> None:
    """The first folder that has it counts."""
    write_files(folder, flows__a='script s { run = "tools/x" }')
    for root in ("one", "two"):
        folder.joinpath(root, "tools").mkdir(parents=True)
    folder.joinpath("two/tools/x").write_text("")
    answer = check("flows", "--scripts", "one", "--scripts", "two")

    assert "`chmod +x two/tools/x`" in answer.out
    assert "looked for one/tools/x" in check("flows", "--scripts", "one").out


KNOWN = """\
actions = ["build"]
gate_types = ["human_review"]
targets = ["repo"]
identities = ["bot"]
snippets = ["style"]
schemas = ["verdict"]

[providers.tickets]
scope = ["team"]
filter = ["state"]
filter_example = '{ state = "open" }'
"""


def test_what_is_known_about_the_place_is_held_against_the_files(folder: Path) -> None:
    folder.joinpath("known.toml").write_text(KNOWN)
    each = "foreach {} {{ over = {} max_parallel = 1 workflow = b {} }}"
    write_files(
        folder,
        a="\n".join(
            [
                "meta { targets = [repo, moon] }",
                "call build { as = bot with = [style] output = verdict }",
                "call bild { as = bob with = [styl] output = verdit }",
                "gate deploy { }",
                each.format("f1", "ticket", ""),
                each.format("f2", "tickets", "scope = { teem = a } ordered = true"),
                each.format("f3", "tickets", "filter = { sate = open }"),
            ]
        ),
        b="call build",
    )
    found = [(c, line) for c, line, _ in places("--known", "known.toml")["a.wf"]]

    assert sorted(found, key=lambda each: each[1]) == [
        ("WF519", 1),
        ("WF525", 4), ("WF561", 4), ("WF562", 4), ("WF564", 4),
        ("WF528", 5),
        ("WF512", 6),
        ("WF513", 7), ("WF515", 7), ("WF517", 7),
        ("WF518", 8),
    ]  # fmt: skip
    assert codes()["a.wf"] == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("actions = 3", "`actions` must be a list of texts"),
        ("action = []", "has an unknown key `action`: did you mean `actions`?"),
        ("[providers]\nlist = 3", "a provider must be a table"),
        ("providers = 3", "`providers` must be a table"),
        ("[providers.list]\nordered = 1", "`filter_example` must be a text"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_wrong_word_about_the_place_is_wrong_usage(folder: Path, text: str, reason: str) -> None:
    folder.joinpath("known.toml").write_text(text)
    answer = check("--known", "known.toml")

    assert answer.code == 2
    assert reason in " ".join(answer.err.split())


def test_the_reference_describes_what_is_printed(folder: Path) -> None:
    """docs/reference/check.md: its tables name the fields of the JSON, its TOML can be read."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    write_files(folder, a="call 3x")
    document = json.loads(check("a.wf", "--format", "json").out)
    (file,) = document["files"]
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    folder.joinpath("known.toml").write_text(toml)

    assert told == [*document, *file, *file["diagnostics"][0]]
    assert check("a.wf", "--known", "known.toml").code == 1


def test_a_snapshot_is_checked_like_a_file(folder: Path) -> None:
    """What an older version of the original kept of a run; not found by looking through folders."""
    node = {"type": "call", "agent": {"kind": "name", "value": "x"}, "bot_name": "robot"}
    folder.joinpath("old.json").write_text(
        dump(accepted("call x")).replace('"body":[', f'"body":[{json.dumps(node)},')
    )
    answer = check("old.json")

    assert answer.code == 0
    assert answer.out == (
        "old.json: warning WF702: `body[0].bot_name` is the older name of `as_identity`\n"
        "      = it is read as such\n"
        "\n"
        "1 file checked: 0 errors, 1 warning\n"
    )
    assert places() == {}
    assert places("old.json") == {"old.json": [("WF702", 0, 0)]}


def test_schemas_and_snippets_are_held_against_the_files(folder: Path) -> None:
    """By the names of their files, or by those that are given; a broken schema is told."""
    write_files(
        folder,
        a="call x { output = verdict with = [style] }\n"
        "call y { output = broken with = [tone] }\n"
        "call z { output = other with = [odd] }",
    )
    for path, text in {
        "schemas/verdict.yaml": "fields:\n  approved: boolean\n",
        "schemas/broken.yml": "fields: 3\n",
        "schemas/notes.txt": "no schema",
        "style.md": "Be brief.",
        "somewhere.txt": "Be kind.",
    }.items():
        folder.joinpath(path).parent.mkdir(exist_ok=True)
        folder.joinpath(path).write_text(text)
    options = ("--schema", "schemas", "--snippet", "style.md", "--snippet", "tone=somewhere.txt")
    found = [(code, line) for code, line, _ in places(*options)["a.wf"]]

    assert found == [("WF563", 3), ("WF561", 4), ("WF562", 4)]
    assert codes() == {"a.wf": ""}
    assert check("--schema", "gone.yaml").code == 2
    assert check("--snippet", "gone.md").code == 2
