"""A forge for each test, and a client of it that no proxy comes between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from client.github.forge import Forge, serve_forge

from runkon_client.github import GitHub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with serve_forge() as forge:
        yield forge


@pytest.fixture
async def github(forge: Forge) -> AsyncIterator[GitHub]:
    github = GitHub(forge.url)
    yield github
    await github.close()
