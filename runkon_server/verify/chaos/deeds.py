"""How each kind of fault is done and undone; `nemesis` says when and to whom."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, LiteralString, TypeAlias

import psycopg

from runkon_server.verify.chaos.proxies import BOTH, Catch, Direction, Trap
from runkon_server.verify.chaos.schedule import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from runkon_server.verify.chaos.cluster import Cluster, Member

    Doer: TypeAlias = Callable[["Scene"], Awaitable[None]]

COMMITTER: Final = b"plan_cache_mode"
"""In the first message of a committer's connection, and of no other."""
TRAP_S: Final = 8.0
SLOW_S: Final = 0.1
"""In each direction."""
THROTTLED_BYTES_S: Final = 4096.0
_LOCK: Final[LiteralString] = "LOCK TABLE workflow_runs IN SHARE ROW EXCLUSIVE MODE"
_TERMINATE: Final[LiteralString] = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"""


class SkippedError(Exception):
    """This cannot be done now; the text says why."""


class On(Enum):
    """Whom a kind of fault is done to."""

    REPLICA = "replica"
    WORKER = "worker"
    CALLER = "caller"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault is done."""

    cluster: Cluster
    victim: Member | None
    """None: the database."""
    lasts_s: float

    @property
    def member(self) -> Member:
        """The victim, where there is one."""
        assert self.victim is not None
        return self.victim


async def _stop_process(scene: Scene, number: signal.Signals) -> None:
    process = scene.member.process
    if number is signal.SIGKILL:
        await asyncio.to_thread(process.kill)
    else:
        await asyncio.to_thread(process.end, number)
    await asyncio.sleep(scene.lasts_s)
    process.start()


async def _kill(scene: Scene) -> None:
    await _stop_process(scene, signal.SIGKILL)


async def _term(scene: Scene) -> None:
    await _stop_process(scene, signal.SIGTERM)


async def _freeze(scene: Scene) -> None:
    scene.member.process.freeze()
    try:
        await asyncio.sleep(scene.lasts_s)
    finally:
        scene.member.process.thaw()


async def _freeze_in_transaction(scene: Scene) -> None:
    """The rows of a batch are locked and its owner does not even hear so."""
    trap = await _trap(scene, b"BEGIN", Catch.HOLD_ANSWER)
    scene.member.process.freeze()
    try:
        await asyncio.sleep(scene.lasts_s)
    finally:
        trap.release.set()
        scene.member.process.thaw()


async def _trap(scene: Scene, pattern: bytes, catch: Catch) -> Trap:
    """Wait until the victim's committer runs into a trap.

    Raises:
        SkippedError: it committed nothing.
    """
    trap = Trap(pattern, COMMITTER, catch)
    scene.member.proxy.set(trap)
    try:
        async with asyncio.timeout(TRAP_S):
            await trap.sprung.wait()
    except TimeoutError:
        scene.member.proxy.heal()
        raise SkippedError(f"{scene.member.process.name} committed nothing meanwhile") from None
    return trap


async def _cut_transaction(scene: Scene) -> None:
    await _trap(scene, b"BEGIN", Catch.LOSE_ANSWER)


async def _lose_commit(scene: Scene) -> None:
    await _trap(scene, b"COMMIT", Catch.LOSE_REQUEST)


async def _lose_commit_answer(scene: Scene) -> None:
    await _trap(scene, b"COMMIT", Catch.LOSE_ANSWER)


async def _late_commit(scene: Scene) -> None:
    await _trap(scene, b"COMMIT", Catch.LATE)


async def _slow(scene: Scene) -> None:
    scene.member.proxy.delay(SLOW_S)
    await _then_heal(scene)


async def _mute(scene: Scene) -> None:
    scene.member.proxy.is_mute = True
    await _then_heal(scene)


async def _partition(scene: Scene) -> None:
    await _hold(scene, BOTH)


async def _partition_one_way(scene: Scene) -> None:
    await _hold(scene, [Direction.DOWN])


async def _hold(scene: Scene, directions: Iterable[Direction]) -> None:
    scene.member.proxy.hold(directions)
    await _then_heal(scene)


async def _throttle(scene: Scene) -> None:
    scene.member.proxy.throttle(THROTTLED_BYTES_S)
    await _then_heal(scene)


async def _then_heal(scene: Scene) -> None:
    try:
        await asyncio.sleep(scene.lasts_s)
    finally:
        scene.member.proxy.heal()


async def _reset(scene: Scene) -> None:
    scene.member.proxy.reset()


async def _half_close(scene: Scene) -> None:
    scene.member.proxy.half_close(Direction.UP)


async def _crash_postgres(scene: Scene) -> None:
    await _restart(scene, signal.SIGQUIT)


async def _restart_postgres(scene: Scene) -> None:
    await _restart(scene, signal.SIGINT)


async def _restart(scene: Scene, number: signal.Signals) -> None:
    database = scene.cluster.database
    await database.restart(number)
    scene.cluster.aim_at(database.url)


async def _terminate_backends(scene: Scene) -> None:
    async with await psycopg.AsyncConnection.connect(
        scene.cluster.database.url, autocommit=True, connect_timeout=3
    ) as conn:
        await conn.execute(_TERMINATE)


async def _lock_table(scene: Scene) -> None:
    async with await psycopg.AsyncConnection.connect(
        scene.cluster.database.url, connect_timeout=3
    ) as conn:
        await conn.execute(_LOCK)
        await asyncio.sleep(scene.lasts_s)


DEEDS: Final[dict[Kind, tuple[On, Doer]]] = {
    Kind.KILL_REPLICA: (On.REPLICA, _kill),
    Kind.TERM_REPLICA: (On.REPLICA, _term),
    Kind.FREEZE_BRIEFLY: (On.REPLICA, _freeze),
    Kind.FREEZE_REPLICA: (On.REPLICA, _freeze),
    Kind.FREEZE_IN_TRANSACTION: (On.REPLICA, _freeze_in_transaction),
    Kind.CRASH_POSTGRES: (On.DATABASE, _crash_postgres),
    Kind.RESTART_POSTGRES: (On.DATABASE, _restart_postgres),
    Kind.TERMINATE_BACKENDS: (On.DATABASE, _terminate_backends),
    Kind.CUT_TRANSACTION: (On.REPLICA, _cut_transaction),
    Kind.LOSE_COMMIT: (On.REPLICA, _lose_commit),
    Kind.LOSE_COMMIT_ANSWER: (On.REPLICA, _lose_commit_answer),
    Kind.LATE_COMMIT: (On.REPLICA, _late_commit),
    Kind.SLOW_DATABASE: (On.REPLICA, _slow),
    Kind.LOCK_TABLE: (On.DATABASE, _lock_table),
    Kind.LOSE_NOTIFICATIONS: (On.REPLICA, _mute),
    Kind.PARTITION_DATABASE: (On.REPLICA, _partition),
    Kind.PARTITION_ONE_WAY: (On.REPLICA, _partition_one_way),
    Kind.PARTITION_WORKER: (On.WORKER, _partition),
    Kind.KILL_WORKER: (On.WORKER, _kill),
    Kind.FREEZE_WORKER: (On.WORKER, _freeze),
    Kind.HALF_CLOSE_WORKER: (On.WORKER, _half_close),
    Kind.RESET_CLIENT: (On.CALLER, _reset),
    Kind.THROTTLE_CLIENT: (On.CALLER, _throttle),
}
TAKES_OWNER: Final = frozenset(
    {Kind.KILL_REPLICA, Kind.FREEZE_REPLICA, Kind.FREEZE_IN_TRANSACTION, Kind.PARTITION_DATABASE}
)
"""After these the victim's runs have to find another owner."""
