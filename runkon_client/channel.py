"""Where the server is, who is calling, and how a channel to it is made."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc
import grpc.aio

from runkon_client.sizes import MESSAGE_BYTES_MAX

DEFAULT_ADDRESS: Final = "127.0.0.1:7411"
_PRINCIPAL_KEY: Final = "runkon-principal"

Options: TypeAlias = tuple[tuple[str, int], ...]

# `keepalive_timeout_ms` alone is inert: a frozen peer is noticed by the HTTP/2 ping's timeout. A
# proxy taken from the environment would break calls even to this machine.
CHANNEL_OPTIONS: Final[Options] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)

# A worker's stream may be silent for hours in both directions; only pings tell that it lives.
WORKER_CHANNEL_OPTIONS: Final[Options] = (
    *CHANNEL_OPTIONS,
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, the namespace to work in and the principal to act as."""

    address: str
    namespace: str
    principal: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return ((_PRINCIPAL_KEY, self.principal),)

    def open_async(self, options: Options = CHANNEL_OPTIONS) -> grpc.aio.Channel:
        """A channel for the running event loop; connects with its first call."""
        return grpc.aio.insecure_channel(self.address, options=options)

    def open_sync(self) -> grpc.Channel:
        """A channel for any thread; connects with its first call."""
        return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)


def resolve_endpoint(
    address: str | None = None, namespace: str | None = None, principal: str | None = None
) -> Endpoint:
    """Fill in what is not given: from the environment, else with defaults.

    Args:
        address: `HOST:PORT` or `unix:PATH`; else RUNKON_ADDRESS, else 127.0.0.1:7411.
        namespace: else RUNKON_NAMESPACE; empty means the server's `default`.
        principal: else RUNKON_PRINCIPAL, else the name of the operating system's user.

    Raises:
        ValueError: the principal is not printable ASCII, so it cannot be sent.
    """
    chosen = principal or os.environ.get("RUNKON_PRINCIPAL") or _os_user()
    if not (chosen.isascii() and chosen.isprintable()):
        raise ValueError(f"principal {chosen!r} is not printable ASCII")
    return Endpoint(
        address=address or os.environ.get("RUNKON_ADDRESS") or DEFAULT_ADDRESS,
        namespace=namespace or os.environ.get("RUNKON_NAMESPACE") or "",
        principal=chosen,
    )


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user id without a name: KeyError up to Python 3.12, OSError from 3.13.
        return f"uid-{os.getuid()}"
