"""Where requests may go. Names are resolved by the test; nothing is ever connected to."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from runkon_client.worker.http import Egress, EgressDeniedError, parse_target
from runkon_client.worker.http.egress import is_public, resolve_name

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://a.example/", "ftp://a.example/", "a.example", "//a.example",
        "http://", "http:///path", "https://:443/", "http://u@127.0.0.1/", "http://u:p@a.example/",
        "http://a.example\\@127.0.0.1/", "http://a.example/\r\nX: y", "http://a.example/\tb",
        "http://a.example/ b", "http://①②⑦.0.0.1/", "http://a.example:99999/", "http://a_b.example/",
        "http://[::1/", "http://a.example:x/", "javascript:alert(1)", "", "http://a..example/",
        f"http://{'a' * 64}.example/", "http://a.example../",
    ],
)  # fmt: skip
def test_41_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_target(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://A.Example", "a.example", 443, "/", "a.example"),
        ("http://a.example:8080/x?y=1#z", "a.example", 8080, "/x?y=1", "a.example:8080"),
        ("http://[2606:4700::1]:80/", "2606:4700::1", 80, "/", "[2606:4700::1]"),
        ("https://a.example./x", "a.example", 443, "/x", "a.example"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    target = parse_target(url)

    assert (target.host, target.port, target.path) == (host, port, path)
    assert target.authority == authority


async def resolved(*addresses: str, allowed: str | None = None) -> str:
    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("a.example", 443)
        return addresses

    networks = () if allowed is None else (ipaddress.ip_network(allowed),)
    egress = Egress(allowed=networks, resolve=resolve)
    return await egress.address_of(parse_target("https://a.example/"))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "100.64.0.1", "169.254.169.254", "172.31.0.1",  # noqa: S104
        "192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
        "::1", "::", "::127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:0:1::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "ff02::1",
        "2001:db8::1", "3fff::1", "100::1",
    ],
)  # fmt: skip
async def test_42_what_is_not_public_is_denied(address: str) -> None:
    """Also where Python's own `is_global` says otherwise."""
    with pytest.raises(EgressDeniedError, match="no public address"):
        await resolved(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1", "::ffff:1.1.1.1"])
async def test_what_is_public_may_be_reached(address: str) -> None:
    assert await resolved(address) == address


async def test_43_one_private_address_among_public_ones_denies_the_name() -> None:
    with pytest.raises(EgressDeniedError):
        await resolved("1.1.1.1", "10.0.0.1")


async def test_what_the_operator_allows_may_be_reached() -> None:
    assert await resolved("10.1.2.3", allowed="10.0.0.0/8") == "10.1.2.3"
    with pytest.raises(EgressDeniedError):
        await resolved("10.1.2.3", allowed="10.1.3.0/24")
    with pytest.raises(EgressDeniedError):
        await resolved("::1", allowed="10.0.0.0/8")


async def test_a_name_without_addresses_is_an_error_of_the_network() -> None:
    with pytest.raises(OSError, match="no address"):
        await resolved()


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0"])
async def test_42_numbers_that_stand_for_this_machine_are_seen_through(host: str) -> None:
    """The machine's resolver turns them into what they stand for; that is what is looked at."""
    with pytest.raises(EgressDeniedError):
        await Egress().address_of(parse_target(f"http://{host}/"))


async def test_localhost_is_not_public() -> None:
    found = await resolve_name("localhost", 80)

    assert found
    assert not any(is_public(ipaddress.ip_address(each)) for each in found)
