"""What every session with PostgreSQL is told at its start: how long it may wait, and for what.

The lease protocol counts on two of them: `idle_in_transaction_session_timeout`, without which a
replica that is frozen in the middle of a transaction keeps its rows locked for ever, and
`lock_timeout`, without which a renewal waits for a forgotten lock until all leases have run out.

docs/operating.md tells operators what each protects; see there before changing one.
"""

from __future__ import annotations

import os
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

LOCK_TIMEOUT_MS_MAX: Final = 1_000
IDLE_SHARE: Final = 3
"""A third of the TTL: what is frozen in a transaction is gone before the second renewal."""
LOCK_SHARE: Final = 4
"""A quarter of the TTL, if that is shorter: a renewal that is held up leaves time for another."""
SERVER_SETTINGS: Final = {
    "timezone": "UTC",
    "application_name": "runkon",
    # A peer that does not answer, as the server sees it; the client's side is below.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_connection_check_interval": "2000",
}
CLIENT_SETTINGS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def connection_options(dsn: str, lease_ttl_s: float, **settings: str) -> dict[str, Any]:
    """Keyword arguments for psycopg: autocommit, and everything that bounds a wait.

    Args:
        dsn: libpq URL or key/value text; options in it stand unless set here.
        lease_ttl_s: of the runs that the session may own.
        settings: further ones of the server.
    """
    merged = {**guards(lease_ttl_s), **SERVER_SETTINGS, **settings}
    ours = " ".join(f"-c {name}={value}" for name, value in merged.items())
    options = f"{schema_options(dsn)} {ours}"
    return {"autocommit": True, **client_settings(dsn), "options": options}


def client_settings(dsn: str) -> dict[str, Any]:
    """What bounds the client's waits; `connect_timeout` only if the operator says no other.

    He says it as he does to every program of PostgreSQL: in the URL, or by PGCONNECT_TIMEOUT.
    """
    settings = dict(CLIENT_SETTINGS)
    if "connect_timeout" in _given(dsn) or "PGCONNECT_TIMEOUT" in os.environ:
        del settings["connect_timeout"]
    return settings


def schema_options(dsn: str) -> str:
    """The options of the DSN, with the schemas pinned that names are looked up in.

    What a role or database is set to does not count: a schema that somebody else may create in
    could put its own tables and functions before ours.
    """
    given = str(_given(dsn).get("options") or "")
    return given if "search_path" in given else f"{given} -c search_path=public,pg_temp".strip()


def _given(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:  # no libpq text; whoever connects says what is wrong with it
        return {}


def guards(lease_ttl_s: float) -> dict[str, str]:
    """What keeps a frozen replica from holding locks, and a locked row from holding a replica."""
    ttl_ms = lease_ttl_s * 1000
    return {
        "idle_in_transaction_session_timeout": str(max(500, int(ttl_ms / IDLE_SHARE))),
        "lock_timeout": str(max(100, min(LOCK_TIMEOUT_MS_MAX, int(ttl_ms / LOCK_SHARE)))),
    }


def pooled_options(dsn: str) -> dict[str, Any]:
    """As `connection_options`, for a pooler that gives every transaction another session.

    Such a pooler neither passes settings on at the start nor keeps prepared statements.
    """
    own = {"autocommit": True, "application_name": "runkon", "prepare_threshold": None}
    return client_settings(dsn) | own
