"""The chaos rig as a whole, for a few seconds on a database that is lent to it; and its command."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from runkon_server.cli.verify import verify
from runkon_server.verify.chaos.cluster import Size
from runkon_server.verify.chaos.databases import LentDatabase, NotEmptyError
from runkon_server.verify.chaos.figures import Floors
from runkon_server.verify.chaos.schedule import Kind, PlannedFault
from runkon_server.verify.chaos.soaks import Soak, SoakRun

if TYPE_CHECKING:
    from pathlib import Path

BRIEF = Soak(
    seconds=3,
    seed=3,
    lease_ttl_s=2,
    size=Size(replicas=2, workers=2, callers=2),
    schedule=(
        PlannedFault(1.0, Kind.KILL_REPLICA, target=0, lasts_s=0.2),
        PlannedFault(1.5, Kind.RESET_CLIENT, target=1, lasts_s=0.2),
        PlannedFault(2.0, Kind.TERMINATE_BACKENDS, target=0, lasts_s=0.2),
    ),
    floors=Floors(ok_ratio=0.3, steals=0, reconnects=0, late_reports=0),
    is_brief=True,
)


def contents(database: str) -> int:
    """How many tables the database has."""
    with psycopg.connect(database) as conn:
        found = conn.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.timeout(600)
async def test_a_brief_soak_breaks_things_and_finds_nothing_broken(
    empty_database: str, tmp_path: Path
) -> None:
    """Real processes, real faults; the database is as empty in the end as it was.

    The archive can be judged again, and a judge who is shown a forged one objects.
    """
    run = SoakRun(BRIEF, LentDatabase(empty_database), lambda _: None)
    try:
        verdict = await run.run()
        archive = shutil.copytree(run.folder, tmp_path / "archive")
    finally:
        shutil.rmtree(run.folder)

    assert [str(violation) for violation in verdict.violations] == []
    assert verdict.figures.runs > 0
    assert verdict.figures.faults.total() == 3
    assert contents(empty_database) == 0

    again = CliRunner().invoke(verify, ["--check", str(archive)])
    assert (again.exit_code, again.output) == (0, verdict.text)

    lose_an_event(archive)
    forged = CliRunner().invoke(verify, ["--check", str(archive)])
    assert forged.exit_code == 1
    assert "S5 run" in forged.output


def lose_an_event(archive: Path) -> None:
    path = archive / "evidence.json"
    evidence = json.loads(path.read_text(encoding="utf-8"))
    run = next(iter(evidence["runs"].values()))
    del run["events"][1]
    path.write_text(json.dumps(evidence), encoding="utf-8")


async def test_a_schema_with_something_in_it_is_refused(database: str) -> None:
    """Nothing is touched."""
    before = contents(database)
    run = SoakRun(BRIEF, LentDatabase(database), lambda _: None)

    with pytest.raises(NotEmptyError, match="not empty: it has"):
        await run.run()

    assert contents(database) == before
    shutil.rmtree(run.folder)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "either --database-url or --own-postgres"),
        (["--own-postgres", "--database-url", "postgresql://h/d"], "either"),
        (["--own-postgres", "--schedule", "{folder}/schedule"], "no schedule|Expecting"),
        (["--own-postgres", "--archive", "{folder}"], "there already"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_starts(
    arguments: list[str], why: str, tmp_path: Path
) -> None:
    tmp_path.joinpath("schedule").write_text("nonsense", encoding="utf-8")

    done = CliRunner().invoke(verify, [each.format(folder=tmp_path) for each in arguments])

    assert done.exit_code == 2
    assert any(each in done.output for each in why.split("|"))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(verify, ["--check", str(tmp_path)])

    assert done.exit_code == 1
    assert "is no archive of a rig" in done.output
