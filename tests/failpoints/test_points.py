"""Failpoints themselves: their table, their syntax, what each action does, what they cost."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

import runkon_server
from runkon_server import failpoints
from runkon_server.failpoints import POINTS, failpoint, failpoint_async
from runkon_server.store.database import is_connection_loss, is_retryable
from runkon_server.store.writing import POINT_AFTER
from support.servers import runkon_server as runkon_server_process

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(runkon_server.__file__).parent


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    """No test leaves a point armed."""
    yield
    failpoints.disarm()


def calls() -> Iterator[str]:
    """The name in every call of a failpoint in the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                first = node.args[0] if node.args else None
                if node.func.id in {"failpoint", "failpoint_async"}:
                    if isinstance(first, ast.Constant):
                        yield str(first.value)
                    else:
                        # The only names that are not written at their place stand in a table.
                        assert path.name == "writing.py", f"{path}:{node.lineno}"
                        yield from POINT_AFTER.values()


def test_every_point_in_the_code_is_registered_and_every_registered_one_is_in_the_code() -> None:
    assert set(calls()) == set(POINTS)


def test_a_point_that_is_not_armed_does_nothing() -> None:
    failpoints.arm("batch.begin=raise")
    failpoint("batch.locked")
    assert failpoints.fired() == {"batch.begin": 0}


@pytest.mark.parametrize(
    "text",
    ["nowhere=exit", "batch.begin", "batch.begin=explode", "batch.begin=sleep",
     "batch.begin=sleep(soon)", "batch.begin=raise(12345)", "batch.begin=exit/0",
     "batch.begin=exit(3)", "from=start"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_armed(text: str) -> None:
    with pytest.raises(failpoints.FailpointSyntaxError, match=text.partition("=")[0]):
        failpoints.arm(f"batch.locked=raise;{text}")
    failpoint("batch.locked")
    assert failpoints.fired() == {}


def test_raise_is_an_error_that_nobody_expects() -> None:
    failpoints.arm("batch.begin=raise")
    with pytest.raises(failpoints.FailpointError, match=r"batch\.begin"):
        failpoint("batch.begin")


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
def test_raise_with_a_sqlstate_is_the_error_of_the_database(sqlstate: str) -> None:
    failpoints.arm(f"batch.begin=raise({sqlstate})")
    with pytest.raises(psycopg.Error) as raised:
        failpoint("batch.begin")
    assert raised.value.sqlstate == sqlstate
    assert is_retryable(raised.value)


def test_ambiguous_is_the_loss_of_the_connection() -> None:
    failpoints.arm("batch.begin=ambiguous")
    with pytest.raises(psycopg.OperationalError) as raised:
        failpoint("batch.begin")
    assert is_connection_loss(raised.value)
    assert not is_retryable(raised.value)


def times(passages: int) -> list[int]:
    """In which of so many passages the point `batch.begin` raised."""
    found = []
    for number in range(1, passages + 1):
        try:
            failpoint("batch.begin")
        except failpoints.FailpointError:
            found.append(number)
    return found


def test_a_count_limits_how_often_something_happens() -> None:
    failpoints.arm("batch.begin=raise*2")
    assert times(5) == [1, 2]


def test_every_nth_time() -> None:
    failpoints.arm("batch.begin=raise*2/3")
    assert times(12) == [3, 6]


def test_chance_is_fixed_by_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        failpoints.disarm()
        failpoints.arm(f"seed={seed};batch.begin=raise%5")
        found.append(times(1000))
    assert found[0] == found[1] != found[2]
    assert 20 < len(found[0]) < 90


async def test_sleep_holds_up_the_coroutine_and_not_the_loop() -> None:
    failpoints.arm("batch.begin=sleep(60000)")
    held = asyncio.create_task(failpoint_async("batch.begin"))
    await asyncio.sleep(0)
    assert failpoints.fired() == {"batch.begin": 1}
    assert not held.done()
    held.cancel()


@pytest.mark.parametrize("is_async", [False, True])
def test_block_holds_up_until_disarmed(*, is_async: bool) -> None:
    failpoints.arm("batch.begin=block")
    passed = threading.Event()

    def pass_it() -> None:
        if is_async:
            asyncio.run(failpoint_async("batch.begin"))
        else:
            failpoint("batch.begin")
        passed.set()

    thread = threading.Thread(target=pass_it)
    thread.start()
    while not failpoints.fired()["batch.begin"]:
        pass
    assert not passed.is_set()
    failpoints.disarm()
    assert passed.wait(60)
    thread.join()


def run_server(armed: str) -> subprocess.CompletedProcess[str]:
    """`runkon-server version` with points armed."""
    return subprocess.run(
        [sys.executable, "-m", "runkon_server.cli", "version"],
        env={"RUNKON_FAILPOINTS": armed},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_server_refuses_to_start_with_an_unknown_point() -> None:
    done = run_server("batch.begun=exit")
    assert done.returncode == 2
    assert "there is no failpoint 'batch.begun'" in done.stderr


def test_the_server_says_what_is_armed(database: str) -> None:
    environment = {"RUNKON_DATABASE_URL": database, "RUNKON_FAILPOINTS": "batch.begin=exit*0"}
    with runkon_server_process(["serve", "--listen", "127.0.0.1:0"], environment) as server:
        server.started()
        assert server.records("failpoints.armed")[0]["points"] == ["batch.begin"]


def test_nothing_counts_before_the_server_serves() -> None:
    failpoints.arm("from=serving;batch.begin=raise*1/2")
    for _ in range(3):
        failpoint("batch.begin")
    failpoints.serving()
    failpoint("batch.begin")
    with pytest.raises(failpoints.FailpointError):
        failpoint("batch.begin")


def test_a_server_comes_to_serve_whatever_it_passes_on_the_way(database: str) -> None:
    """It executes some ten statements before it serves; the first one after that ends it."""
    armed = "from=serving;statement.answered=exit*1"
    environment = {"RUNKON_DATABASE_URL": database, "RUNKON_FAILPOINTS": armed}
    with runkon_server_process(["serve", "--listen", "127.0.0.1:0"], environment) as server:
        server.started()
        assert server.ended() == failpoints.EXIT_CODE


def test_exit_ends_the_process_at_once_with_its_own_code() -> None:
    script = (
        "import atexit; from runkon_server import failpoints\n"
        "atexit.register(lambda: print('tidied up'))\n"
        "failpoints.arm('batch.begin=exit')\n"
        "failpoints.failpoint('batch.begin')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == failpoints.EXIT_CODE
    assert "tidied up" not in done.stdout
    assert "failpoint.fired" in done.stdout + done.stderr
