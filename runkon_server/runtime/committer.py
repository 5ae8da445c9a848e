"""Group commit: the entries of many runs, one transaction, as soon as the last one returned.

Rules that hold here (architecture, ADR-0006):

* no timer: an idle committer commits a lone entry at once; under load batches grow by themselves;
* entries of one run keep their order, and two batches in flight share no run;
* an entry that loses drops out alone; a row the database refuses is found by halving the batch;
* a database that takes no writes is tried again: callers are told, decisions wait;
* a commit whose answer was lost is looked up by its transaction id before anybody is told anything.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from runkon_server import errors
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.entries import Batch
from runkon_server.store import database
from runkon_server.store.failures import refusal_to_write
from runkon_server.store.fates import Fate, fate_of
from runkon_server.store.locking import Wants, find_locked, lock
from runkon_server.store.pipeline import Pipeline
from runkon_server.store.writing import Stamp, Writes, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.entries import Entry
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.runtime.tenure import Tenure
    from runkon_server.store.locking import Locked
    from runkon_server.store.pipeline import Statement

log = structlog.get_logger(__name__)

ENTRIES_PER_BATCH_MAX = 512
RETRIES_MAX = 5
OUTCOME_POLLS_MAX = 100
YIELDS = 3
"""Turns of the event loop before a batch is closed: what the commit before it set off (a report of
an action in this process, a frame that has arrived) joins instead of making a batch of its own."""
SPLIT_MIN = 16
"""Fewer entries than this stay together: a batch has a price of its own."""
CONNECTS_WHILE_CLOSING_MAX = 3
LOSSES_UNTOLD_MAX = 5
"""Sessions that a batch may lose, one after the other, before callers are told."""
REFUSED_PAUSE_S = 0.5
"""Between attempts while the database answers but takes no writes."""


class OutcomeUnknown(Exception):
    """A batch may or may not be committed and the database cannot say."""


@dataclass(slots=True)
class _Lane:
    """One transaction at a time."""

    conn: Pipeline | None = None
    pending: list[list[Entry]] = field(default_factory=list)
    """Entries that are not told yet, in the parts in which they are tried."""

    async def disconnect(self) -> None:
        """Close the connection; the next transaction gets another one."""
        conn, self.conn = self.conn, None
        if conn is not None:
            await conn.close()


class Committer:
    """Takes entries, commits them in batches, tells each what became of it.

    Args:
        after_commit: called with each durable batch, before its entries are told.
        hint: gives what is sent behind the COMMIT of a batch, if something is.
        hinted: told what became of that; None: it was executed.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        tenure: Tenure,
        stats: EngineStats,
        *,
        after_commit: Callable[[Batch], None],
        hint: Callable[[Batch], Statement | None],
        hinted: Callable[[Exception | None], None],
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._tenure = tenure
        self._stats = stats
        self._after_commit = after_commit
        self._hint = hint
        self._hinted = hinted
        self._queue: deque[Entry] = deque()
        self._busy_runs: set[str] = set()
        self._busy_keys: set[tuple[Any, ...]] = set()
        self._signal = asyncio.Event()
        self._closing = False
        self._idle_lanes = 0
        self.trouble: errors.UnavailableError | None = None
        """Why nothing can be committed now; found out by who tried."""

    @property
    def is_behind(self) -> bool:
        """Whether more is queued than the next batches will take."""
        return len(self._queue) > self._config.lanes * ENTRIES_PER_BATCH_MAX

    def submit(self, entry: Entry) -> None:
        """Queue an entry; its `committed` or `failed` is called later."""
        self._queue.append(entry)
        self._signal.set()

    def close(self) -> None:
        """Commit what is queued, then let the lanes end."""
        self._closing = True
        self._signal.set()

    def give_up(self) -> None:
        """Tell whoever is still queued that nothing was done; for when the lanes are gone."""
        while self._queue:
            self._queue.popleft().failed(errors.DrainingError())

    async def run_lane(self) -> None:
        """One connection's loop; run as many as transactions should be in flight."""
        lane = _Lane()
        try:
            while True:
                self._idle_lanes += 1
                try:
                    entries = await self._take()
                finally:
                    self._idle_lanes -= 1
                if not entries:
                    return
                lane.pending = [entries]
                try:
                    await self._commit_all(lane)
                finally:
                    self._release(entries)
        except asyncio.CancelledError:
            # Wherever it was: COMMIT may be on its way, and nobody waits for its answer.
            _leave_unknown(lane.pending)
            raise
        finally:
            await lane.disconnect()

    async def _take(self) -> list[Entry]:
        """The next entries: one per exclusive key, none of a run in flight; [] at the end."""
        while True:
            for _ in range(YIELDS):
                await self._ambient.sleep(0)
            taken = self._pick()
            if taken:
                return taken
            if self._closing and not self._queue:
                self._signal.set()
                return []
            self._signal.clear()
            await self._signal.wait()

    def _pick(self) -> list[Entry]:
        taken: list[Entry] = []
        left: deque[Entry] = deque()
        runs: set[str] = set()
        held_back: set[str] = set()
        room = self._room()
        while self._queue and len(taken) < room:
            entry = self._queue.popleft()
            if entry.is_given_up:
                entry.failed(errors.DatabaseUnavailableError())
                continue
            keys = entry.exclusive
            blocked = entry.run_id in self._busy_runs or entry.run_id in held_back
            if blocked or (keys and not self._busy_keys.isdisjoint(keys)):
                held_back.add(entry.run_id)
                left.append(entry)
                continue
            taken.append(entry)
            runs.add(entry.run_id)
            self._busy_keys.update(keys)
        left.extend(self._queue)
        self._queue = left
        self._busy_runs |= runs
        return taken

    def _room(self) -> int:
        """How many entries the next batch takes: a fair share while other lanes have nothing.

        With one big batch the database waits while the replica decides and the replica waits while
        the database writes; in halves, each works on one while the other has the other.
        """
        queued = len(self._queue)
        share = -(-queued // max(1, self._idle_lanes))
        return min(ENTRIES_PER_BATCH_MAX, queued if queued < SPLIT_MIN else share)

    def _release(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._busy_runs.discard(entry.run_id)
            self._busy_keys.difference_update(entry.exclusive)
        if self._queue:
            self._signal.set()

    async def _commit_all(self, lane: _Lane) -> None:
        """Commit what is pending, whatever happens to the connection."""
        pending = lane.pending
        attempts = losses = 0
        while pending:
            conn = lane.conn = lane.conn or await self._connect(pending[-1])
            # Who was told that the database is away must not have it done after all.
            for entry in pending[-1]:
                if conn is None or entry.is_given_up:
                    entry.failed(errors.DatabaseUnavailableError())
            part = pending[-1] = [entry for entry in pending[-1] if not entry.is_given_up]
            if conn is None or not part:
                pending.pop()
                continue
            try:
                batch = await self._commit(conn, part)
            except OutcomeUnknown:
                _leave_unknown([pending.pop()])
                await lane.disconnect()
            except Exception as error:  # noqa: BLE001 - told to the entry it is due to, and logged
                refusal = refusal_to_write(error)
                if refusal is not None or database.is_connection_loss(error) or conn.is_lost:
                    await lane.disconnect()
                    if refusal is None:
                        losses += 1
                        is_kept = await self._outlast(losses, part)
                    else:
                        is_kept = await self._await_writable(refusal, part)
                    if not is_kept:
                        pending.pop()
                    continue
                await _roll_back(lane, conn)
                attempts += 1
                may_wait = len(part) == 1 or not database.is_lock_timeout(error)
                if database.is_retryable(error) and may_wait and attempts <= RETRIES_MAX:
                    self._stats.commit_retries += 1
                elif len(part) > 1:
                    pending[-1:] = await _taken_apart(lane, part, error)
                else:
                    self._refuse(pending.pop()[0], error)
            else:
                pending.pop()
                self.trouble = None
                losses = 0
                self._tell(batch, part)

    async def _outlast(self, losses: int, waiting: Sequence[Entry]) -> bool:
        """Pause if sessions can be had, but one after the other is lost in its transaction.

        As behind a pooler that has no server: callers are told after a while, decisions are kept.

        Returns:
            Whether to try again; not when the replica is stopping.
        """
        if losses == 1:
            return True
        log.warning("database.loses_sessions", losses=losses)
        if losses > LOSSES_UNTOLD_MAX:
            self.trouble = errors.DatabaseUnavailableError()
            self._fail_callers(waiting)
            if self._closing:
                for entry in waiting:
                    entry.failed(self.trouble)
                return False
        await self._ambient.sleep(self._pause_s(losses))
        return True

    async def _await_writable(
        self, refusal: errors.UnavailableError, waiting: Sequence[Entry]
    ) -> bool:
        """Tell callers that nothing can be written, and pause; decisions are kept for later.

        Returns:
            Whether to try again; not when the replica is stopping.
        """
        if self.trouble is None:
            log.warning("database.refuses_writes", reason=refusal.reason)
        self.trouble = refusal
        self._fail_callers(waiting)
        if self._closing:
            for entry in waiting:
                entry.failed(refusal)
            return False
        await self._ambient.sleep(REFUSED_PAUSE_S * (0.5 + self._ambient.jitter()))
        if all(entry.is_given_up for entry in (*waiting, *self._queue)):
            self.trouble = None  # nobody is left to find out: the next one has to
        return True

    def _announce(self, batch: Batch) -> None:
        """Tell of a durable batch's events, once.

        That is when the answer to COMMIT is read: streams write before the lane goes on, and it
        goes on to what takes longest, the next decisions.
        """
        if batch.is_announced:
            return
        batch.is_announced = True
        try:
            failpoint("batch.telling")
            self._after_commit(batch)
        except Exception:
            log.exception("commit.listener_failed")

    def _tell(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """Say that a batch is durable; whoever fails to hear it must not undo it for the others."""
        self._announce(batch)
        for entry in entries:
            try:
                entry.committed(batch)
            except Exception as error:
                log.exception("commit.untold", run_id=entry.run_id, entry=type(entry).__name__)
                entry.failed(error)

    def _refuse(self, entry: Entry, error: Exception) -> None:
        log.error("commit.refused", run_id=entry.run_id, entry=type(entry).__name__, exc_info=error)
        self._stats.commit_refusals += 1
        known = database.is_retryable(error) or isinstance(error, errors.RunkonError)
        entry.failed(errors.ConflictError() if known else error)

    async def _commit(self, conn: Pipeline, entries: Sequence[Entry]) -> Batch:
        started = self._ambient.boottime_s()
        wants = Wants()
        for entry in entries:
            entry.want(wants)
        await failpoint_async("batch.begin")
        locked = await lock(conn, wants)
        await failpoint_async("batch.locked")
        token = self._tenure.token
        batch = Batch(locked, Writes(), token, {}, set(), may_take=self._tenure.is_standing)
        for entry in entries:
            entry.apply(batch)
        stamp = Stamp(locked.now, self._config.lease_ttl_s, self._config.task_lease_s, token)
        touched = locked.runs.values()
        await failpoint_async("batch.decided")
        try:
            announce = partial(self._announce, batch)
            await write(
                conn, batch.writes, touched, stamp, committed=announce, behind=self._hint(batch)
            )
        except psycopg.Error as error:
            if not (database.is_connection_loss(error) or conn.is_lost):
                raise
            # An open session of ours would hold the transaction, and with it the answer.
            await conn.close()
            if not await self._was_committed(batch):
                raise
            batch.is_hinted = False  # it may have been, or not
        self._stats.observe_batch(len(entries), self._ambient.boottime_s() - started)
        return batch

    async def _was_committed(self, batch: Batch) -> bool:
        """What became of a transaction whose COMMIT was never answered.

        Raises:
            OutcomeUnknown: nobody can say, or the database stays away.
        """
        self._stats.ambiguous_commits += 1
        locked = batch.locked
        witness = next(((e.run_id, e.seq) for each in batch.events.values() for e in each), None)
        for _ in range(OUTCOME_POLLS_MAX):
            try:
                fate = await self._ask_fate(locked, witness)
            except psycopg.Error:
                await self._ambient.sleep(0.1 + 0.2 * self._ambient.jitter())
                continue
            if fate is Fate.OPEN:
                await self._ambient.sleep(0.05)
                continue
            log.warning("commit.resolved", xid=locked.xid, fate=fate.value)
            self._stats.commits_resolved[fate.value] += 1
            if fate is Fate.UNKNOWN:
                break
            return fate is Fate.COMMITTED
        raise OutcomeUnknown

    async def _connect(self, waiting: Sequence[Entry]) -> Pipeline | None:
        """Connect, for as long as it takes; callers are told after a while, actors wait.

        Returns:
            None when the replica is stopping and the database stays away.
        """
        attempt = 0
        while attempt < CONNECTS_WHILE_CLOSING_MAX or not self._closing:
            try:
                conn = await self._open()
            except psycopg.Error as error:
                attempt += 1
                log.warning("database.unreachable", attempt=attempt, error=str(error).strip())
                if attempt > 1 or self._closing:
                    self.trouble = errors.DatabaseUnavailableError()
                    self._fail_callers(waiting)
                await self._ambient.sleep(self._pause_s(attempt))
            else:
                if isinstance(self.trouble, errors.DatabaseUnavailableError):
                    self.trouble = None
                return conn
        return None

    def _pause_s(self, attempt: int) -> float:
        """Before another session is tried, longer each time; `attempt` may be any number."""
        return float(min(2.0, 0.05 * 2 ** min(attempt, 10)) * self._ambient.jitter())

    async def _ask_fate(self, locked: Locked, witness: tuple[str, int] | None) -> Fate:
        config = self._config
        async with await database.connect_committer(config.session_dsn, config.lease_ttl_s) as conn:
            await failpoint_async("batch.resolving")
            return await fate_of(conn, locked, witness)

    async def _open(self) -> Pipeline:
        config = self._config
        settings = database.transaction_settings(config.lease_ttl_s) if config.is_pooled else None
        conn = await database.connect_committer(
            config.dsn, config.lease_ttl_s, is_pooled=config.is_pooled
        )
        return Pipeline(conn, settings=settings, behind_answered=self._hinted)

    def _fail_callers(self, waiting: Sequence[Entry]) -> None:
        reason = self.trouble or errors.DatabaseUnavailableError()
        for entry in (*waiting, *self._queue):
            entry.unavailable(reason)


async def _roll_back(lane: _Lane, conn: Pipeline) -> None:
    """End the transaction; the connection is gone if it broke just now."""
    try:
        await conn.run([("ROLLBACK", ())])
    except psycopg.Error:
        await lane.disconnect()


def _leave_unknown(parts: Iterable[Sequence[Entry]]) -> None:
    """Say that nobody can say whether it was done."""
    for entry in itertools.chain(*parts):
        entry.failed(errors.OutcomeUnknownError())


async def _taken_apart(lane: _Lane, entries: list[Entry], error: Exception) -> list[list[Entry]]:
    """A batch that failed in parts, the first one last.

    Halves, unless a lock was waited for in vain: then those whose runs nobody keeps locked go
    first and together, and the others wait one by one.
    """
    middle = len(entries) // 2
    halves = [entries[middle:], entries[:middle]]
    if lane.conn is None or not database.is_lock_timeout(error):
        return halves
    runs: dict[int, set[str]] = {}
    for entry in entries:
        wants = Wants()
        entry.want(wants)
        runs[id(entry)] = wants.runs
    try:
        locked = await find_locked(lane.conn, set().union(*runs.values()))
    except psycopg.Error:
        return halves
    free = [entry for entry in entries if locked.isdisjoint(runs[id(entry)])]
    kept = [entry for entry in entries if not locked.isdisjoint(runs[id(entry)])]
    return [*([entry] for entry in reversed(kept)), free] if free and kept else halves
