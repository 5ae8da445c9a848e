"""What the project says about itself is true: image, CI, changelog, decision records."""

from __future__ import annotations

import ast
import os
import re
import shlex
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
SECTIONS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASE: Final = re.compile(r"## \[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d")
STATUS: Final = re.compile(r"^Status: (Proposed|Accepted|Superseded by \d{4})", re.MULTILINE)


def dockerfile() -> list[list[str]]:
    """The Dockerfile's instructions as words, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip("# ")]


def test_dockerfile_copies_what_exists() -> None:
    """Every source of a COPY from the build context is there (no image is built here)."""
    copies = [
        source
        for words in dockerfile()
        if words and words[0] == "COPY" and not words[1].startswith("--from")
        for source in [word for word in words[1:] if not word.startswith("--")][:-1]
    ]

    assert copies
    assert [source for source in copies if not ROOT.joinpath(source).exists()] == []


def test_image_is_slim_unprivileged_and_checked() -> None:
    """Two stages, a user of its own at the end, SIGTERM, and the server's own health command."""
    instructions = dockerfile()
    last_stage = max(at for at, words in enumerate(instructions) if words[:1] == ["FROM"])
    final = {words[0]: words[1:] for words in instructions[last_stage:] if words}

    assert sum(words[:1] == ["FROM"] for words in instructions) == 2
    assert final["USER"] not in ([], ["root"], ["0"])
    assert final["STOPSIGNAL"] == ["SIGTERM"]
    assert {"runkon-server", "health"} <= set(re.findall(r"[\w-]+", " ".join(final["HEALTHCHECK"])))


def test_ci_runs_what_the_readme_says() -> None:
    """A newcomer's test command and CI's are the same."""
    command = "python3 dev.py test"

    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", [".ci/run", ".ci/nightly"])
def test_ci_calls_commands_that_there_are(script: str) -> None:
    """Each by its name in dev.py, and all of them may be executed."""
    path = ROOT / script
    called = re.findall(
        r"^stage\w* python3 dev\.py (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    functions = ast.parse((ROOT / "dev.py").read_text(encoding="utf-8")).body
    names = {each.name for each in functions if isinstance(each, ast.FunctionDef)}

    assert called
    assert set(called) <= names
    assert os.access(path, os.X_OK)


def test_changelog_has_the_form_it_promises() -> None:
    """Keep a Changelog 1.1: Unreleased first, dated versions falling, six kinds of section.

    Each kind once in a release, in the order of the format's own page, and none of them empty.
    """
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    dated = [RELEASE.fullmatch(line) for line in releases[1:]]
    versions = [tuple(map(int, found.groups())) for found in dated if found]

    assert lines[0] == "# Changelog"
    assert releases[0] == "## [Unreleased]"
    assert len(versions) == len(dated)
    assert versions == sorted(versions, reverse=True)
    for release in re.split(r"^## ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)\n\n- ", release, re.MULTILINE)
        assert kinds == [kind for kind in SECTIONS if kind in kinds]
        assert len(kinds) == release.count("\n### ")


@pytest.mark.parametrize("heading", ["Context", "Decision", "Consequences", "Rejected"])
def test_every_decision_record_is_whole(heading: str) -> None:
    """docs/adr: numbered without gaps, each with a status and all its parts."""
    records = sorted(ROOT.joinpath("docs/adr").glob("[0-9]*.md"))

    assert [int(path.name[:4]) for path in records] == list(range(len(records)))
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert STATUS.search(text), path.name
        assert f"\n## {heading}\n" in text, path.name
