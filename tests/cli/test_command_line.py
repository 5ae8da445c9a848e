"""The command line itself: options, usage errors, help. No server is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from runkon_client.cli import COMMANDS, EXTENSIONS, main
from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.modules import load_actions
from runkon_client.cli.pairs import read_pairs
from runkon_client.cli.session import ServerCommand, Settings, report
from runkon_client.cli.sources import is_file
from runkon_client.errors import Code, InvalidArgumentError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator


def invoke(*words: str) -> tuple[int, str]:
    """Exit code, and output with errors."""
    result = CliRunner().invoke(main, list(words))
    return result.exit_code, result.output


def leaves(
    command: click.Command, name: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words."""
    context = click.Context(command)
    if not isinstance(command, click.Group):
        yield " ".join(name), command
        return
    for word in command.list_commands(context):
        if not name and word in EXTENSIONS:  # they have tests of their own
            continue
        found = command.get_command(context, word)
        assert found is not None
        yield from leaves(found, (*name, word))


LEAVES = dict(leaves(main))


def test_help_needs_neither_grpc_nor_rich() -> None:
    """In an interpreter of its own; nor is the server's package asked for its commands."""
    program = (
        "import sys\n"
        "from runkon_client.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'grpc', 'google', 'rich', 'asyncio', 'importlib.metadata', 'runkon_server'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "Usage: " in done.stdout
    assert all(line in done.stdout for line in EXTENSIONS.values())
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_line_begins_like_the_commands_own_help(name: str) -> None:
    """The table of `runkon --help` is written by hand, so that nothing is imported for it."""
    load, line = COMMANDS[name]
    help_text = load().get_short_help_str(limit=200)

    assert line.split()[:1] == help_text.split()[:1]
    assert line.endswith(".")


@pytest.mark.parametrize("words", LEAVES)
def test_every_command_says_what_its_exit_codes_mean(words: str) -> None:
    """In its help, with those that every command has."""
    code, output = invoke(*words.split(), "--help")
    text = " ".join(output.split())

    assert code == 0
    assert "Exit codes: 0 " in text
    assert "2 wrong usage" in text


@pytest.mark.parametrize("words", sorted(set(LEAVES) - {"demo", "worker"}))
def test_every_server_command_takes_the_same_options(words: str) -> None:
    """Address, namespace, principal, and JSON."""
    command = LEAVES[words]
    names = {option for parameter in command.params for option in parameter.opts}

    assert isinstance(command, ServerCommand)
    assert {"--address", "--namespace", "--principal", "--json"} <= names


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "w", "-i", "novalue"],
        ["run", "w", "-i", "a=1", "-i", "a=2"],
        ["run", "no-such-file.wf"],
        ["run", "w", "--on-conflict", "perhaps"],
        ["run", ""],
        ["run", "w", "-i", "a=\udcff"],
        ["runs", "show"],
        ["runs", "show", ""],
        ["runs", "cancel", "\udcff"],
        ["runs", "watch", "x", "--after", "99999999999999999999"],
        ["runs", "list", "--limit", "0"],
        ["runs", "list", "--limit", "99999999999999999999"],
        ["runs", "items", "x", "--limit", "99999999999999999999"],
        ["events", "x", "--since", "9223372036854775808"],
        ["events", "x", "--since", "e3"],
        ["limits", "set", "a", "--concurrency", "99999999999999999999"],
        ["gates", "approve"],
        ["workflows", "put"],
        ["workflows", "put", "no-such-file.wf"],
        ["workflows", "show", "w@new"],
        ["workflows", "show", "w@0"],
        ["workflows", "show", "w@9223372036854775808"],
        ["worker", "no_such_module"],
        ["worker", "no-such-file.py"],
        ["--principal", "Zoë", "runs", "list"],
        ["no-such-command"],
        ["top", "--interval", "nan"],
        ["run", "/dev/null"],
        ["workflows", "put", "/dev/null"],
    ],
    ids=lambda words: ascii(" ".join(words)),
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    """Before any server is asked: none is running."""
    code, output = invoke(*words)

    assert code == Exit.USAGE
    assert "Error: " in output


def test_a_file_that_is_not_utf8_is_wrong_usage(tmp_path: Path) -> None:
    """The message names the file and the byte."""
    file = tmp_path / "latin.wf"
    file.write_bytes(b"workflow w { call \xe4 }")
    code, output = invoke("workflows", "validate", str(file))

    assert code == Exit.USAGE
    assert "not UTF-8: byte 18" in output


@pytest.mark.parametrize("words", [["run", "-"], ["check", "-"], ["fmt", "-"], ["demo"]], ids=str)
def test_a_standard_input_that_is_closed_is_wrong_usage(words: list[str]) -> None:
    """As of a job that is started without one."""
    program = [sys.executable, "-m", "runkon_client.cli", *words]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" "$@" <&-', *program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == Exit.USAGE
    assert "error" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_options_may_stand_before_and_after_the_command() -> None:
    """The later one wins; what was given is repeated in commands to copy."""

    @click.command(cls=ServerCommand)
    @click.pass_obj
    def probe(settings: Settings) -> None:
        click.echo(f"{settings.address} {settings.as_json} {settings.command('runs', 'list')}")

    group = click.Group(commands={"probe": probe}, params=main.params[:4])
    words = ["--json", "--address", "a:1", "probe", "--address", "b:2"]
    output = CliRunner().invoke(group, words).output

    assert output == "b:2 True runkon runs list --address b:2\n"


def test_commands_to_copy_are_quoted() -> None:
    """What people paste into a shell must stay one word."""
    words = Settings(namespace="x; rm -rf ~").command("gates", "approve", "a b")

    assert words == "runkon gates approve 'a b' --namespace 'x; rm -rf ~'"


def test_values_may_hold_equal_signs_and_be_empty() -> None:
    """Only the first `=` separates."""
    context = click.Context(main)

    assert read_pairs(context, main.params[0], ("a=b=c", "d=")) == {"a": "b=c", "d": ""}


@pytest.mark.parametrize(
    ("argument", "is_one"),
    [("-", True), ("x.wf", True), ("./x", True), ("greet", False), ("greet@3", False)],
)
def test_what_names_a_file_and_what_a_stored_workflow(argument: str, *, is_one: bool) -> None:
    """Never by looking into the folder: the same words mean the same everywhere."""
    assert is_file(argument) is is_one


def test_the_epilog_lists_the_codes_in_order() -> None:
    """A command adds what is special about it."""
    assert explain(failed="it broke").startswith("Exit codes: 0 done, 1 it broke, 2 wrong usage, 4")


def test_actions_are_found_in_files_and_modules(tmp_path: Path) -> None:
    """A file may import what lies beside it."""
    tmp_path.joinpath("runkon_probe_beside.py").write_text("NAME = 'a'\n")
    file = tmp_path / "runkon_probe_actions.py"
    file.write_text(
        "from runkon_client import Actions\n"
        "from runkon_probe_beside import NAME\n"
        "actions = Actions()\n"
        "actions.action(NAME)(lambda task: None)\n"
    )

    assert load_actions(str(file)).names == ("a",)
    assert load_actions("runkon_probe_actions").names == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no `actions"),
        ("actions = 3", "has no `actions"),
        ("from runkon_client import Actions\nactions = Actions()", "are empty"),
    ],
    ids=["none", "other", "empty"],
)
def test_a_module_without_actions_is_wrong_usage(tmp_path: Path, text: str, message: str) -> None:
    """The message says what is missing."""
    file = tmp_path / "probe.py"
    file.write_text(text)

    with pytest.raises(click.UsageError, match=message):
        load_actions(str(file))


def test_a_mistake_inside_a_module_shows_itself(tmp_path: Path) -> None:
    """Its own traceback is what helps; it is not said that the module is missing."""
    file = tmp_path / "runkon_probe_broken.py"
    file.write_text("import no_such_thing_at_all\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        load_actions(str(file))


@pytest.mark.parametrize(
    ("typed", "meant"), [("gate", "gates"), ("evnts", "events"), ("fmr", "fmt")]
)
def test_a_command_with_a_typo_is_guessed(typed: str, meant: str) -> None:
    """Also those from elsewhere; without importing one of them."""
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in invoke(typed)[1]


def test_output_without_room_or_reader_ends_a_command_without_a_traceback() -> None:
    """On a full disk, and into `head`, whose writers a shell expects to end by SIGPIPE."""
    line = [sys.executable, "-m", "runkon_client.cli", "check", "--help"]
    with Path("/dev/full").open("w") as full:
        refused = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        left = subprocess.run(line, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)

    assert refused.returncode == Exit.USAGE
    assert "cannot write the output: No space left on device" in refused.stderr
    assert left.returncode == Exit.UNREAD
    assert "Traceback" not in refused.stderr + left.stderr


def test_who_names_no_gate_is_told_where_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The refusal has no reason of its own, only the field."""
    place = Violation("gate_id", "is not the id of a gate")
    error = InvalidArgumentError(
        "gate_id: is not the id of a gate", code=Code.INVALID_ARGUMENT, violations=(place,)
    )
    report(error, Settings(namespace="team"))

    assert "hint: `runkon gates list --namespace team` lists those that" in capsys.readouterr().err
