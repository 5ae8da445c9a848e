"""Who is believed: local callers only."""

from __future__ import annotations

import grpc
import pytest

from runkon_server.api.identity import principal_of
from runkon_server.api.server import AddressError, bind, is_local


@pytest.mark.parametrize(
    ("peer", "principal"),
    [
        ("ipv4:127.0.0.1:1234", "zoe"),
        ("ipv4:127.9.9.9:1", "zoe"),
        ("ipv6:[::1]:1234", "zoe"),
        ("ipv6:%5B::1%5D:1234", "zoe"),
        ("unix:", "zoe"),
        ("unix:/run/runkon.sock", "zoe"),
        ("ipv4:10.0.0.1:1234", "anonymous"),
        ("ipv4:1.2.7.0:127", "anonymous"),
        ("ipv6:[::2]:1", "anonymous"),
        ("ipv6:[::ffff:10.0.0.1]:1", "anonymous"),
        ("", "anonymous"),
    ],
)
def test_a_name_is_believed_from_this_machine_only(peer: str, principal: str) -> None:
    assert principal_of([("runkon-principal", "zoe")], peer) == principal


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.1.2.3:0", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("unix:/run/runkon.sock", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("10.0.0.1:50051", False),
        ("example.org:50051", False),
    ],
)
def test_an_address_is_local_if_only_this_machine_reaches_it(address: str, local: bool) -> None:  # noqa: FBT001 - a case
    assert is_local(address) is local


async def test_a_listener_is_opened_where_it_may_be() -> None:
    """Any free port, the same port a second time, an open address, and what is no address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = bind(server, "127.0.0.1:0")

    assert port > 0
    for address in (f"127.0.0.1:{port}", "0.0.0.0:0", "nowhere", "127.0.0.1:http"):
        with pytest.raises(AddressError):
            bind(server, address)
    assert bind(server, "0.0.0.0:0", insecure=True) > 0
    await server.stop(0)
