"""What every test may ask for; see `support` for how it is made."""

from __future__ import annotations

import hypothesis
import pytest

# Before anything imports it: shared checks explain their failures as tests do.
pytest.register_assert_rewrite("support")

pytest_plugins = ["support.postgres"]

# A shared machine keeps no deadline; a failing example is kept in `.hypothesis` and tried first.
hypothesis.settings.register_profile("quick", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("quick")
