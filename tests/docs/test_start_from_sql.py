"""docs/start-from-sql.md: its snippets, on a real service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from runkon.v1.runs_pb2 import StartRunRequest
from support.live_api import live_api
from support.live_work import put

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (Path(__file__).parents[2] / "docs" / "start-from-sql.md").read_text()
FULFIL = "workflow fulfil { inputs { ticket required } call echo }"


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("CREATE TABLE orders (id text PRIMARY KEY, ticket text)")
        yield session


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


async def test_the_snippets_start_one_run(database: str, conn: psycopg.Connection[Any]) -> None:
    """SQL, psycopg and the statements of the JDBC one; an order that was placed fails alone."""
    names: dict[str, Any] = {}
    exec(snippets("python")[0], names)  # noqa: S102 - what is tested is the text
    inserting, starting = re.findall(r'prepareStatement\(\s*"(.*?)"\)', snippets("java")[0])

    async with live_api(database) as api:
        await put(api, FULFIL)
        for statement in snippets("sql")[0].split(";"):
            conn.execute(statement)
        by_psycopg = names["place_order"](conn, "4712", "T-4712")
        with pytest.raises(psycopg.errors.UniqueViolation):
            names["place_order"](conn, "4711", "T-other")
        with conn.transaction():
            conn.execute(inserting.replace("?", "%s"), ("4713", "T-4713"))
            row = conn.execute(
                starting.replace("?::", "%s::").replace("=> ?", "=> %s"), ("T-4713", "order-4713")
            ).fetchone()
        repeated = StartRunRequest(
            workflow="fulfil", inputs={"ticket": "T-4713"}, request_id="order-4713"
        )
        by_jdbc = await api.runs.StartRun(repeated)
        repeated.request_id, repeated.inputs["ticket"] = "order-4712", "T-4712"
        called = await api.runs.StartRun(repeated)
        conn.execute(snippets("sql")[1])

    assert row == (by_jdbc.run.id,)
    assert called.run.id == by_psycopg
    assert conn.execute("SELECT count(*) FROM workflow_runs").fetchone() == (3,)
