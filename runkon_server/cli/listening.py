"""Addresses to listen on, and whether a socket in the file system may be taken."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass

import click

UNIX = "unix:"
PORT_MAX = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One place to listen on: a host and port, or a socket in the file system."""

    host: str = ""
    port: int = 0
    """0: any free one."""
    path: str = ""

    @property
    def target(self) -> str:
        """As gRPC wants it."""
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_port(self, port: int) -> Address:
        """The same place, with the port that was really taken."""
        return self if self.path else Address(host=self.host, port=port)


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.

    Raises:
        click.BadParameter: it is none of them.
    """
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path or "\0" in path:
            raise click.BadParameter(f"{text!r} has no path; write unix:/run/runkon.sock")
        return Address(path=path)
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not separator or not host or (":" in host) is not bracketed:
        raise click.BadParameter(f"{text!r} is no address; write HOST:PORT or unix:PATH")
    if not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
        raise click.BadParameter(f"{port!r} is no port; it is a number up to {PORT_MAX}")
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as reason:
        raise click.BadParameter(f"{host!r} is no host of this machine: {reason}") from None
    return Address(host=host, port=int(port))


def free_unix_path(path: str) -> None:
    """Make sure that nobody listens at the path: gRPC would silently take the socket's place.

    Raises:
        click.ClickException: somebody does, or something else lies there.
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise click.ClickException(f"cannot listen on {UNIX}{path}: it is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise click.ClickException(f"cannot listen on {UNIX}{path}: somebody else does")
