"""The environment of scripts, layer by layer; the bounds of what is kept of their output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_client.worker.scripts.capture import Capture
from runkon_client.worker.scripts.environment import build_environment, is_protected
from runkon_client.worker.scripts.execution import not_run
from runkon_client.worker.scripts.script import ScriptOutcome


def test_later_layers_win() -> None:
    """The definition over the operator over what every script has."""
    environment = build_environment(
        passed={"PATH": "/passed", "LANG": "passed", "TOKEN": "passed"},
        asked={"LANG": "asked", "RUNKON_NAME": "ada"},
    )

    assert environment.variables == {
        "PATH": "/passed",
        "LANG": "asked",
        "TOKEN": "passed",
        "RUNKON_NAME": "ada",
    }


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "PYTHONSTARTUP", "RUBYLIB", "NODE_PATH",
        "NODE_OPTIONS", "PERL5OPT", "BASH_ENV", "ENV", "IFS", "SHELLOPTS", "GIT_SSH_COMMAND",
        "GIT_DIR", "GH_TOKEN", "GITHUB_TOKEN", "HOME", "TMPDIR", "BASH_FUNC_ls%%",
    ],
)  # fmt: skip
def test_38_protected_variables_are_dropped(name: str) -> None:
    """Bad input 38: what steers programs from outside is not the definition's to set."""
    environment = build_environment(passed={}, asked={name: "x", "FINE": "y"})

    assert is_protected(name)
    assert environment.dropped == [name]
    assert environment.variables["FINE"] == "y"
    assert environment.variables.get(name) != "x"


@pytest.mark.parametrize("name", ["", "A=B", "a b", "1st", "ü", "item.id", "A\0", "-n"])
def test_103_what_is_no_name_is_dropped(name: str) -> None:
    """Letters, digits and underscores of ASCII, no digit first."""
    assert build_environment(passed={}, asked={name: "x"}).dropped == [name]


def test_a_value_with_nul_is_dropped() -> None:
    """No process can be given it."""
    assert build_environment(passed={}, asked={"A": "x\0y"}).dropped == ["A"]


@given(chunks=st.lists(st.binary(max_size=200), max_size=30), kept=st.integers(64, 600))
def test_what_is_kept_is_bounded_and_holds_both_ends(chunks: list[bytes], kept: int) -> None:
    """Short streams come whole; of long ones the beginning and the end, never more than asked."""
    capture = Capture(kept)
    for chunk in chunks:
        capture.add(bytes(byte % 26 + 97 for byte in chunk))
    whole = "".join(chr(byte % 26 + 97) for chunk in chunks for byte in chunk)
    text = capture.text()

    assert capture.total_bytes == len(whole)
    if text != whole:
        head, _, rest = text.partition("\n[")
        note, _, tail = rest.partition(" bytes left out]\n")
        assert len(text) <= kept
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(tail) >= len(head)
        assert int(note) == len(whole) - len(head) - len(tail)
    else:
        assert len(whole) <= kept


@given(st.binary(max_size=3000))
def test_what_is_kept_is_text_of_no_more_bytes(data: bytes) -> None:
    """Whatever the bytes are: a message has to hold the text."""
    capture = Capture(600)
    capture.add(data)

    assert len(capture.text().encode()) <= 600
    assert "\0" not in capture.text()


def test_a_failure_names_signals_by_their_names() -> None:
    """Also one that has none."""
    killed = ScriptOutcome(stdout="", stderr="", exit_code=None, signal=9)
    strange = ScriptOutcome(stdout="", stderr="", exit_code=None, signal=250)

    refused = not_run("timed out", "SCRIPT_TIMEOUT")

    assert (killed.how, refused.how) == ("was ended by SIGKILL", "timed out")
    assert killed.failure_text("script x") == "script x was ended by SIGKILL"
    assert strange.failure_text("script x") == "script x was ended by signal 250"
