"""The whole service on one machine: database ← proxy ← replicas ← proxy ← workers and callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server.verify.chaos.databases import address_of, url_through
from runkon_server.verify.chaos.processes import RigProcess, inherited_environment
from runkon_server.verify.chaos.programs import SERVED
from runkon_server.verify.chaos.proxies import ChaosProxy
from runkon_server.verify.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runkon_server.verify.chaos.databases import Database

READY_S: Final = 180.0
_LOOK_S: Final = 0.05
_LOAD: Final = "runkon_client.verify"


class NotReadyError(Exception):
    """A replica did not come up; the text ends with what it said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many processes there are of each kind."""

    replicas: int = 3
    workers: int = 4
    """At least two, for the last one breaks the rules."""
    callers: int = 4
    live: int = 4
    """Runs that each caller keeps going."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process and the proxy between it and what it calls."""

    process: RigProcess
    proxy: ChaosProxy


class Cluster:
    """All processes of a rig.

    Args:
        database: started already.
        folder: takes logs and histories.
        lease_ttl_s: of runs and of tasks.
        seed: of the load's decisions.
        is_plain: connections to the database are without TLS, so that proxies can read along.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        size: Size,
        *,
        lease_ttl_s: float,
        seed: int,
        is_plain: bool,
    ) -> None:
        self.database = database
        self.folder = folder
        self._size = size
        self.replicas: list[Member] = []
        self.workers: list[Member] = []
        self.callers: list[Member] = []
        self._lease_ttl_s = lease_ttl_s
        self._seed = seed
        self._is_plain = is_plain
        self._ports: list[int] = []
        self._kept = contextlib.ExitStack()
        """Their ports, also while a replica is down."""
        self._more_proxies: list[ChaosProxy] = []
        """Of callers' second readers; nothing is done to them."""

    @property
    def members(self) -> Iterator[Member]:
        """Everybody."""
        yield from self.replicas
        yield from self.workers
        yield from self.callers

    async def start_replicas(self) -> None:
        """Start them and wait until each serves.

        Raises:
            NotReadyError: see there.
        """
        target = address_of(self.database.url)
        for number in range(1, self._size.replicas + 1):
            port = self._kept.enter_context(kept_port())
            proxy = ChaosProxy([target], reads_postgres=self._is_plain)
            url = url_through(self.database.url, await proxy.start(), plain=self._is_plain)
            process = RigProcess(
                f"replica-{number}",
                [
                    *(sys.executable, "-m", "runkon_server.cli", "serve"),
                    *("--listen", f"127.0.0.1:{port}"),
                    *(
                        "--lease-ttl",
                        str(self._lease_ttl_s),
                        "--task-lease",
                        str(self._lease_ttl_s),
                    ),
                ],
                {**inherited_environment(), "RUNKON_DATABASE_URL": url},
                self.folder / f"replica-{number}.log",
            )
            process.start()
            self.replicas.append(Member(process, proxy))
            self._ports.append(port)
        await self.await_replicas()

    async def await_replicas(self) -> None:
        """Wait until every replica serves in its present life.

        Raises:
            NotReadyError: see there.
        """
        async with asyncio.TaskGroup() as group:
            for member in self.replicas:
                group.create_task(self._await_ready(member.process))

    async def _await_ready(self, process: RigProcess) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while process.is_alive:
                    if [*records(process.log, "server.started", since=process.log_start)]:
                        return
                    await asyncio.sleep(_LOOK_S)
        said = process.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise NotReadyError(f"{process.name} does not come up:\n{said}")

    async def start_workers(self) -> None:
        """Start them, for the queues of `SERVED`; the last is a rogue."""
        for number in range(1, self._size.workers + 1):
            kind = "worker" if number < self._size.workers else "rogue"
            queues = SERVED[(number - 1) % len(SERVED)]
            served = [word for queue in queues for word in ("--queue", queue)]
            member = await self._load(kind, number, ["--lease", str(self._lease_ttl_s), *served])
            self.workers.append(member)

    async def start_callers(self) -> None:
        """Start them."""
        for number in range(1, self._size.callers + 1):
            second = ChaosProxy(self._targets())
            self._more_proxies.append(second)
            arguments = [
                "--live",
                str(self._size.live),
                "--second",
                f"127.0.0.1:{await second.start()}",
            ]
            self.callers.append(await self._load("caller", number, arguments))

    async def _load(self, kind: str, number: int, arguments: list[str]) -> Member:
        proxy = ChaosProxy(self._targets())
        name = f"{kind}-{number}"
        process = RigProcess(
            name,
            [
                *(sys.executable, "-m", _LOAD, kind, "--name", name),
                *("--address", f"127.0.0.1:{await proxy.start()}"),
                *("--folder", str(self.folder), "--seed", str(self._seed * 1000 + number)),
                *arguments,
            ],
            inherited_environment(),
            self.folder / f"{name}.log",
            takes_orders=True,
        )
        process.start()
        return Member(process, proxy)

    def _targets(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for port in self._ports]

    def heal(self) -> None:
        """Every proxy forwards, every process runs."""
        for member in self.members:
            member.proxy.heal()
            member.process.thaw()
            member.process.start()

    def aim_at(self, url: str) -> None:
        """The database is to be found here from now on."""
        for replica in self.replicas:
            replica.proxy.targets = [address_of(url)]

    def order(self, word: str) -> None:
        """Say a word to all callers."""
        for caller in self.callers:
            caller.process.order(word)

    async def stop(self) -> dict[str, int | None]:
        """End everything in good order; the exit codes of those that had to be ended by us."""
        codes: dict[str, int | None] = {}
        for group in (self.callers, self.workers, self.replicas):
            for member in group:
                codes[member.process.name] = await asyncio.to_thread(member.process.end)
        for proxy in (*(member.proxy for member in self.members), *self._more_proxies):
            await proxy.stop()
        self._kept.close()
        return codes

    def kill(self) -> None:
        """End everything at once."""
        for member in self.members:
            member.process.kill()
        self._kept.close()

    def token_suffix(self, replica: Member) -> str | None:
        """The end of the token under which a replica owns runs now; None before it owns any."""
        process = replica.process
        held = [*records(process.log, "lease.lock_held", since=process.log_start)]
        return str(held[-1]["owner"]) if held else None

    def ask_for_stacks(self) -> None:
        """Have every replica log what its tasks are waiting for."""
        for replica in self.replicas:
            replica.process.send(signal.SIGUSR1)


def records(log: Path, event: str | None = None, *, since: int = 0) -> Iterator[dict[str, object]]:
    """The records of a server's log, or those of one event; lines that are none are skipped.

    Args:
        log: the file; there need be none.
        event: None means all.
        since: where to begin, in bytes.
    """
    if not log.exists():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(since)
        for line in lines:
            if event is not None and event not in line:
                continue
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and (event is None or record.get("event") == event):
                    yield record
