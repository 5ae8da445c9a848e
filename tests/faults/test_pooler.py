"""PgBouncer in transaction mode before everything but the sessions: `deploy/pgbouncer.ini`."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from runkon_client import Actions, Client
from runkon_client.values import RunStatus
from runkon_server.verify.ports import kept_port
from support.clusters import replicas, rows, working
from support.engines import until
from support.postmasters import FAST
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client import Task
    from support.postmasters import Postmaster

PROGRAM = shutil.which("pgbouncer")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer here: apt install pgbouncer"),
]

SAMPLE = Path(__file__).parents[2] / "deploy" / "pgbouncer.ini"
SOURCE = """workflow w {
  call work
  gate human_approval { name = go }
  parallel { call work { as = left } call work { as = right } }
}"""


@contextmanager
def pooler_before(database: str, folder: Path) -> Iterator[str]:
    """PgBouncer with the sample's settings; gives the URL that leads through it."""
    with kept_port() as port:
        yield from _pooler_at(port, database, folder)


def _pooler_at(port: int, database: str, folder: Path) -> Iterator[str]:
    there = urlsplit(database)
    sample = configparser.ConfigParser(comment_prefixes=(";",), interpolation=None)
    sample.read(SAMPLE)
    name = there.path.removeprefix("/")
    target = sample["databases"]["runkon"].replace("port=5432", f"port={there.port}")
    sample["databases"] = {name: target.replace("dbname=runkon", f"dbname={name}")}
    users = folder / "users"
    users.write_text('"runkon" ""\n')
    # The tests' server trusts whom it sees; few sessions, so that they are shared.
    sample["pgbouncer"].update(
        listen_port=str(port),
        auth_type="trust",
        auth_file=str(users),
        default_pool_size="3",
    )
    file = folder / "pgbouncer.ini"
    with file.open("w") as out:
        sample.write(out)
    assert PROGRAM is not None
    user = ["-u", "postgres"] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, *user, file], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), "the pooler listens")
        yield f"postgresql://runkon@127.0.0.1:{port}/{name}"
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_runs_go_through_a_pooler_in_transaction_mode(
    postmaster: Postmaster, database: str, open_folder: Path
) -> None:
    """Two replicas, runs with steps and a gate, PostgreSQL restarted in between.

    No prepared statement and no setting may be left in the pooler's sessions.
    """
    actions = Actions()

    @actions.action("work")
    async def work(task: Task) -> str:
        return task.id

    with pooler_before(database, open_folder) as pooled:
        direct = ("--database-direct-url", database)
        with replicas(pooled, 2, *direct) as (one, other):
            async with Client(one.address) as client, working(other.address, actions):
                runs = [await client.start_run(source=SOURCE) for _ in range(20)]

                def waiting() -> bool:
                    found = "SELECT count(*) FROM gates WHERE state = 'pending'"
                    return rows(database, found) == [(20,)]

                await until(waiting, "every run is at its gate")
                settings = rows(
                    pooled, "SELECT current_setting('enable_seqscan'), count(*) FROM"
                    " pg_prepared_statements"
                )  # fmt: skip
                through = rows(
                    database,
                    "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%run_events%'",
                )
                postmaster.restart(FAST)
                for run in runs:
                    await client.run(run.id).gate("go").approve()
                ended = [await run.wait() for run in runs]
                told = [event.seq async for event in runs[0].events()]

        assert {run.status for run in ended} == {RunStatus.COMPLETED}
        assert told == [*range(1, len(told) + 1)]
        assert settings == [("on", 0)]
        assert through == [(True,)]
        for replica in (one, other):
            assert replica.server.records("commit.refused") == []
            assert replica.server.records("run.abandoned") == []
