"""`import runkon_client` imports nothing yet, and yet has everything."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runkon_client


def run(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", runkon_client.__all__)
def test_every_name_that_is_promised_is_there(name: str) -> None:
    """And it is what its own module defines under that name."""
    value = getattr(runkon_client, name)

    assert getattr(value, "__name__", name) == name
    assert name in dir(runkon_client)


def test_what_type_checkers_see_is_what_the_interpreter_finds() -> None:
    """The imports they read, the table behind `__getattr__` and `__all__` name the same."""
    source = Path(runkon_client.__file__).read_text(encoding="utf-8")
    imported = {
        alias.name: node.module.removeprefix("runkon_client.")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and "runkon_client" in node.module
        for alias in node.names
    }

    assert imported == runkon_client._HOMES
    assert sorted(imported) == sorted(runkon_client.__all__)


def test_the_package_alone_imports_no_grpc() -> None:
    program = "import sys, runkon_client; print({'grpc', 'google', 'asyncio'} & set(sys.modules))"

    assert run(program) == "set()"


def test_public_modules_need_no_import_of_their_own() -> None:
    """`import runkon_client` was always enough for these."""
    program = (
        "import runkon_client as c; print(c.errors.NotFoundError is c.NotFoundError, c.values)"
    )

    assert run(program).startswith("True <module 'runkon_client.values'")


def test_a_star_import_brings_everything() -> None:
    program = "from runkon_client import *; print(Client.__name__, WaitTimeoutError.__name__)"

    assert run(program) == "Client WaitTimeoutError"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Clinet'"):
        _ = runkon_client.Clinet  # type: ignore[attr-defined] # the slip is the point
