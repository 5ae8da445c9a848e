"""`runkon-server verify`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runkon_server.verify.chaos.archives import Verdict
    from runkon_server.verify.chaos.soaks import Soak

KEPT = "runkon-verify"


@click.command()
@click.option(
    "--database-url",
    envvar="RUNKON_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="Where to work: a database whose schema is empty, and will be so again.",
)
@click.option(
    "--own-postgres",
    is_flag=True,
    help="Start a PostgreSQL instead, whose process can then be harmed as well.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(5, 86_400),
    default=60.0,
    show_default=True,
    help="How long things are broken; healing and checking come on top.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=1,
    show_default=True,
    help="Decides on programs and faults.",
)
@click.option(
    "--schedule",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Do exactly these faults: the schedule.jsonl of an archive.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help=f"Where a failed run is kept. Default ./{KEPT}-SEED.",
)
@click.option("--keep", is_flag=True, help="Keep the archive of a run that went well, too.")
@click.option(
    "--check",
    "checked",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Start nothing: judge an archive again.",
)
def verify(
    database_url: str | None,
    *,
    own_postgres: bool,
    seconds: float,
    seed: int,
    schedule: Path | None,
    archive: Path | None,
    keep: bool,
    checked: Path | None,
) -> None:
    """Break things on purpose, and check that no promise was broken.

    Starts three replicas, four workers and four callers on your database, kills, freezes and cuts
    them off by a schedule that the seed decides, heals everything, and compares what all of them
    saw with what the database holds. Exit code 1 if anything was lost, done wrongly, or stuck.
    """
    from runkon_server.verify.chaos.archives import NoArchiveError, judge

    if checked is not None:
        try:
            _finish(judge(checked))
        except NoArchiveError as reason:
            raise click.ClickException(str(reason)) from None
        return
    if (database_url is None) is not own_postgres:
        raise click.UsageError("give either --database-url or --own-postgres")

    from runkon_server.verify.chaos.schedule import load_schedule
    from runkon_server.verify.chaos.soaks import Soak

    try:
        faults = None if schedule is None else load_schedule(schedule.read_text(encoding="utf-8"))
    except ValueError as reason:
        raise click.UsageError(f"{schedule}: {reason}") from None
    folder = archive or Path(f"{KEPT}-{seed}")
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is there already: name another with --archive")
    _soak(Soak(seconds=seconds, seed=seed, schedule=faults), database_url, folder, keep=keep)


def _soak(soak: Soak, database_url: str | None, folder: Path, *, keep: bool) -> None:
    import asyncio

    import psycopg

    from runkon_server.store.embedded import EmbeddedPostgresError
    from runkon_server.verify.chaos.cluster import NotReadyError
    from runkon_server.verify.chaos.databases import LentDatabase, NotEmptyError, OwnPostgres
    from runkon_server.verify.chaos.soaks import SoakRun

    database = OwnPostgres() if database_url is None else LentDatabase(database_url)
    run = SoakRun(soak, database, click.echo)
    is_kept = True
    try:
        verdict = asyncio.run(run.run())
        is_kept = keep or bool(verdict.violations)
    except (NotEmptyError, EmbeddedPostgresError) as reason:
        is_kept = False
        raise click.ClickException(str(reason)) from None
    except (NotReadyError, psycopg.Error) as reason:
        raise click.ClickException(str(reason)) from None
    finally:
        if is_kept:
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(run.folder, folder, dirs_exist_ok=True)
            click.echo(f"archive: {folder}")
        shutil.rmtree(run.folder, ignore_errors=True)
    for kind in sorted(set(soak.kinds) - run.kinds):
        click.echo(f"left out, for this database: {kind.words}")
    _finish(verdict)


def _finish(verdict: Verdict) -> None:
    """Print a verdict and end the command with its exit code."""
    click.echo(verdict.text, nl=False)
    if verdict.violations:
        raise SystemExit(1)
