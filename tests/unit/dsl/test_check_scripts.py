"""V22 to V24: the programs that scripts begin with, in a file system that the test makes up."""

from __future__ import annotations

import pytest

from runkon_server.dsl.check import World, check
from runkon_server.dsl.checking.scripts import program_path
from support.workflows import accepted
from support.worlds import find_script

WORLD = World(scripts=find_script)


def found(run: str, world: World = WORLD) -> list[tuple[str, str, str | None]]:
    problems = check(accepted(f"do {{ script s {{ run = {run} }} }}"), world)
    return [(each.code, each.message, each.hint) for each in problems]


@pytest.mark.parametrize(
    ("run", "path"),
    [
        ("bin/build", "bin/build"),
        ("  bin/build --all x/y", "bin/build"),
        ("MODE=fast OTHER='a b' bin/build", "bin/build"),
        ("'bin/with blank' x", "bin/with blank"),
        (r"bin/with\ blank x", "bin/with blank"),
        ('bin/"a b"', "bin/a b"),
        ("bin/build;bin/other", "bin/build"),
        ("./build>log", "./build"),
        ("/usr/bin/env python", "/usr/bin/env"),
        ("make all", None),
        ("cd bin && ./build", None),
        ("$HOME/bin/build", None),
        ("~/bin/build", None),
        ("bin/*.sh", None),
        ("bin/{{name}}", None),
        ("bin/build {{name}}", None),
        ("(bin/build)", None),
        ("", None),
        ("'unclosed/", None),
        ("A=1", None),
    ],
)
def test_only_a_command_that_begins_with_a_path_is_looked_up(run: str, path: str | None) -> None:
    """IMP-24: the first word of the command, as the shell would read it; V22 skips placeholders."""
    assert program_path(run) == path


@pytest.mark.parametrize(
    ("run", "path"),
    [
        ("'" * 64_000, None),
        ("a/" * 32_000, "a/" * 32_000),
        ("A=1 " * 16_000, None),
        ('"\\' * 32_000, None),
        ("a\\ " * 21_000 + "'", None),
    ],
    ids=["quotes", "one word", "assignments", "open quote", "open at the end"],
)
def test_a_long_command_takes_time_in_proportion_to_its_length(run: str, path: str | None) -> None:
    """Nothing is tried twice; otherwise these would not end within the test's deadline."""
    assert program_path(run) == path


def test_without_a_file_system_nothing_is_concluded() -> None:
    assert found('"bin/gone"', World()) == []


def test_a_program_that_is_there_is_fine() -> None:
    assert found('"bin/build --all"') == []


def test_v22_a_missing_program_is_told_with_the_places_searched() -> None:
    assert found('"bin/gone"') == [
        ("WF522", "`s` runs `bin/gone`, which is not there", "looked for bin/gone, more/bin/gone")
    ]


def test_v22_absolute_paths_are_not_allowed() -> None:
    ((code, message, _),) = found('"/bin/sh x"')

    assert code == "WF522"
    assert message == "`s` runs `/bin/sh`, but absolute paths are not allowed"


def test_v22_paths_that_lead_outside_are_not_looked_up() -> None:
    """Any `..` counts, also one inside a name, as in the original."""
    assert [code for code, _, _ in found('"../x"') + found('"bin/a..b"')] == ["WF522", "WF522"]


def test_v22_a_folder_is_no_program() -> None:
    """IMP-24: the original let it pass."""
    assert found('"bin/"') == [("WF522", "`s` runs `bin/`, but bin/ is not a file", None)]


def test_v23_a_program_that_cannot_be_looked_at() -> None:
    assert found('"bin/locked"') == [
        ("WF523", "`s` runs `bin/locked`, but bin/locked cannot be looked at: no rights", None)
    ]


def test_v24_a_program_must_be_executable() -> None:
    assert found('"bin/plain"') == [
        (
            "WF524",
            "`s` runs `bin/plain`, but bin/plain is not executable: its mode is 0644",
            "`chmod +x bin/plain`",
        )
    ]
