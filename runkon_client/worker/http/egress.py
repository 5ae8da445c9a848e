"""Where requests may go: public addresses, and what the operator allows besides.

Python's `ipaddress` does not decide it: in 3.11 it calls global what leads back to this machine or
its network (`192.0.0.8`, `64:ff9b::7f00:1`, `2002:7f00:1::`, `fec0::1`), so the networks are listed
here, from the IANA registries of special-purpose addresses (RFC 6890 and its successors).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable["Sequence[str]"]]

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]", re.ASCII
)
_LABEL_CHARS_MAX: Final = 63
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
            "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
            "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
"""Within what is public: protocol assignments with Teredo, documentation, 6to4."""


class EgressDeniedError(Exception):
    """A request must not go there; no connection was made."""


class Target(NamedTuple):
    """A URL taken apart, as far as it says where a request goes."""

    scheme: str
    host: str
    port: int
    path: str
    """With its query."""

    @property
    def authority(self) -> str:
        """For the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials belong to."""
        return (self.scheme, self.host, self.port)


def parse_target(url: str) -> Target:
    """The parts of a URL.

    Raises:
        ValueError: it is no plain `http://host…` or `https://host…`: another scheme, no host, a
            user name, blanks, backslashes, control characters, anything that is not ASCII.
    """
    if _UNSAFE.search(url):
        raise ValueError("a URL has no blanks, backslashes, control or non-ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("a URL begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a URL names no user; pass a token with --http-token")
    name = parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]
    if not _HOST.fullmatch(name) or not _can_be_resolved(name):
        raise ValueError("a URL names a host")
    path = parts.path or "/"
    query = f"?{parts.query}" if parts.query else ""
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return Target(parts.scheme, name.strip("[]").rstrip(".").lower(), port, path + query)


def _can_be_resolved(name: str) -> bool:
    """Whether its labels are of lengths that a name may have: others are refused by no OSError."""
    labels = name.removesuffix(".").split(".")
    return name.startswith("[") or all(0 < len(label) <= _LABEL_CHARS_MAX for label in labels)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this machine finds them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Which addresses requests may go to."""

    allowed: tuple[Network, ...] = ()
    """Networks that are not public and may be reached all the same."""
    resolve: Resolve = resolve_name

    async def address_of(self, target: Target) -> str:
        """The address to connect to: names are resolved once, and every answer must be allowed.

        Raises:
            EgressDeniedError: one of the addresses is not.
            OSError: the name has no address.
        """
        found = await self.resolve(target.host, target.port)
        if not found:
            raise OSError(f"{target.host} has no address")
        for text in found:
            if not self._is_allowed(_address(text)):
                raise EgressDeniedError(
                    f"{target.host} leads to {text}, which is no public address;"
                    " --http-allow NETWORK allows it"
                )
        return found[0]

    def _is_allowed(self, address: Address) -> bool:
        return is_public(address) or any(
            address.version == network.version and address in network for network in self.allowed
        )


def _address(text: str) -> Address:
    """An address without its zone; IPv4 within IPv6 is taken out."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Whether the address belongs to a machine on the internet, as far as its number tells."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
