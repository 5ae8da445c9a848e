"""What every test may ask for; see `support` for how it is made."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Final

import hypothesis
import pytest

# Images often say PYTHONDONTWRITEBYTECODE, for their size. Here it would have every worker rewrite
# all asserts, and each of the many processes that tests start compile all of Runkon, once more.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Before anything imports it: shared checks explain their failures as tests do.
pytest.register_assert_rewrite("support")

pytest_plugins = ["support.postgres"]

# A shared machine keeps no deadline, and slow examples are no failure on it; a failing example is
# kept in `.hypothesis` and tried first. Other examples each time find more, but a change that has
# to land is not to blame for what they find: for it they are the same ones each time.
ANY_SPEED: Final = hypothesis.settings(
    derandomize=False, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", ANY_SPEED)
hypothesis.settings.register_profile("thorough", ANY_SPEED, max_examples=2000)
hypothesis.settings.register_profile("repeatable", ANY_SPEED, derandomize=True, database=None)
hypothesis.settings.load_profile("quick")


def pytest_configure() -> None:
    """Keep the logs of servers in this process out of what tests compare."""
    # After the rewrite of asserts above.
    from support.logs import log_past_the_tests  # noqa: PLC0415

    log_past_the_tests()


POLYGLOT: Final = Path(__file__).with_name("polyglot")


def _asks_for_polyglot(config: pytest.Config) -> bool:
    """Whether an argument names the folder or something in it."""
    paths = (Path(config.invocation_params.dir, each.partition("::")[0]) for each in config.args)
    return any(path.resolve().is_relative_to(POLYGLOT) for path in paths)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what takes minutes at first, unless it is asked for."""
    return (collection_path == POLYGLOT and not _asks_for_polyglot(config)) or None


def pytest_collection_finish() -> None:
    """Have the cycle collector walk no longer over thousands of tests that are never freed."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is left out."""
    if _asks_for_polyglot(config):
        return None
    return "left out: tests/polyglot, which builds programs in four languages; name it to run it"
