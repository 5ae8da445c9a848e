"""That this replica is there, told to whoever lists replicas by way of the database."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from runkon_server.store import replicas

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.tenure import Tenure

TELLINGS_PER_TTL: Final = 3


class Attendance:
    """Tells a few times per lease, and when the replica begins to drain.

    Args:
        start_id: of this start of the replica.
        replica_id: its name for people.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        tenure: Tenure,
        start_id: str,
        replica_id: str,
    ) -> None:
        self._every_s = config.lease_ttl_s / TELLINGS_PER_TTL
        self._ambient = ambient
        self._tenure = tenure
        self._start_id = start_id
        self._replica_id = replica_id
        self._version = version("runkon")
        self._started_s = ambient.boottime_s()
        self._told: tuple[str, bool] | None = None
        self._next_s = 0.0
        self._is_draining = False

    def drain(self) -> None:
        """From here on, the replica is stopping."""
        self._is_draining = True

    async def publish(self, conn: AsyncConnection) -> None:
        """Write that the replica is there, if it is time or something has changed."""
        now_s = self._ambient.boottime_s()
        telling = self._tenure.token, self._is_draining
        if telling == self._told and now_s < self._next_s:
            return
        await replicas.announce(
            conn,
            token=self._start_id,
            owner_token=self._tenure.token,
            replica=self._replica_id,
            version=self._version,
            is_draining=self._is_draining,
            started_s=now_s - self._started_s,
        )
        self._told = telling
        self._next_s = now_s + self._every_s

    async def withdraw(self, conn: AsyncConnection) -> None:
        """Leave the list: the replica has stopped."""
        await replicas.withdraw(conn, token=self._start_id)
