"""One server for all tests of the client's testing package, each in a namespace of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_client.testing import LocalServer, local_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def server() -> Iterator[LocalServer]:
    with local_server() as started:
        yield started
